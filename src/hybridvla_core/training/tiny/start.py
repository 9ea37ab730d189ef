"""What a run of the tiny recipe starts from: a new model, or a checkpoint whose numbers mean the same."""
from __future__ import annotations

from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
from tokenizers import Tokenizer

from hybridvla_core.checkpoints.format import STATISTICS, Checkpoint, read_checkpoint, read_weights
from hybridvla_core.data.shards import ShardSet
from hybridvla_core.errors import CheckpointError, ObservationError
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.presets import preset
from hybridvla_core.training.tiny.config import TrainingConfig
from hybridvla_core.transforms.conventions import ActionConvention
from hybridvla_core.transforms.normalise import Normaliser, Scale
from hybridvla_core.transforms.prompt import PromptEncoder

#: What the labels of the simulated rig mean; written into the checkpoint and checked by the rig.
CONVENTION = ActionConvention(
    arms=("arm",), translation="delta_base_frame", rotation="absolute_euler_xyz",
    rotation_reference_xyzw=(1.0, 0.0, 0.0, 0.0), gripper_sense="one_is_open", delta_base="measured",
    action_period_s=0.0, state_source="measured")
#: What the recipe shows the model, and the actions it has it predict at once.
CAMERAS, IMAGE_STRATEGY, CHUNK = ("front",), "resize-naive", 1
#: Roll, pitch and gripper are not scaled: the first two hardly move, the last is 0 or 1.
UNSCALED = (3, 4, 6)
STATISTICS_KEY = "sim_fr3_blocks"


def start(config: TrainingConfig, shards: ShardSet, base: Optional[Checkpoint]) -> Tuple[HybridVLA, Scale, Scale]:
    """Returns the model before its first step, and the statistics of actions and states."""
    if base is None:
        action, state = (Scale.of(values.reshape(-1, values.shape[-1]).astype(np.float64), UNSCALED)
                         for values in (shards.column("target"), shards.column("state")))
        return HybridVLA(preset(config.preset)).initialise(), action, state
    model = HybridVLA(base.config.model)
    read_weights(base, model)
    scales = Normaliser.from_json(base.statistics, base.config.statistics_key, base.config.model.action_dim,
                                  str(base.folder / STATISTICS))
    return model, scales.action, scales.state


def read_base(folder: Path) -> Checkpoint:
    """Reads the checkpoint to start from.

    Args:
        folder: Of the checkpoint.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: Its actions or images mean something else than the labels and images of the recipe.
    """
    base = read_checkpoint(folder)
    pairs: List[Tuple[str, Any, Any]] = [(f"convention.{key}", value, getattr(CONVENTION, key))
                                         for key, value in vars(base.config.convention).items()]
    pairs += [("cameras", base.config.cameras, CAMERAS), ("image_strategy", base.config.image_strategy, IMAGE_STRATEGY),
              ("chunk", base.config.model.chunk, CHUNK)]
    for key, theirs, ours in pairs:
        if theirs != ours:
            raise CheckpointError(f"{folder}: {key} is {_plain(theirs)} there and {_plain(ours)} in this recipe; start from a "
                                  "checkpoint that was trained with the same")
    return base


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else repr(value)


def check_words(tokenizer: Tokenizer, prompts: PromptEncoder, texts: Sequence[str], base: Optional[Checkpoint]) -> None:
    """Checks that every word is one known token: the recipe points at nouns by their place in the sentence."""
    unknown = tokenizer.token_to_id("<unk>")
    for text in texts:
        try:
            ids = prompts.text_ids(text)
        except ObservationError:
            ids = []
        if len(ids) != len(text.split()) or unknown in ids:
            where = "the tiny tokenizer" if base is None else str(base.tokenizer_file)
            raise CheckpointError(f"{where}: {text!r} is not one known token a word, as the recipe needs; start from a "
                                  "checkpoint with a tokenizer of whole words")
