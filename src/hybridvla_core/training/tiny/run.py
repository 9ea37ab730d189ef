"""One training run from files to a checkpoint: what `hybridvla train` calls."""
from __future__ import annotations

import copy
import logging
import math
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from tokenizers import Tokenizer

from hybridvla_core.checkpoints.config import CheckpointConfig, EnsembleConfig
from hybridvla_core.checkpoints.format import Checkpoint, read_checkpoint, read_weights, save_checkpoint
from hybridvla_core.configuration import load_file
from hybridvla_core.data.shards import ShardSet
from hybridvla_core.data.statistics import Statistics
from hybridvla_core.errors import CheckpointError, ConfigurationError, HybridVLAError, ObservationError
from hybridvla_core.files import write_json
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.presets import preset
from hybridvla_core.training.config import TrainingConfig
from hybridvla_core.training.tiny.batches import BatchSource, instruction_ids
from hybridvla_core.training.tiny.heads import AuxiliaryHeads
from hybridvla_core.training.tiny.recipe import Recipe
from hybridvla_core.training.tiny.rollouts import batch_policy
from hybridvla_core.training.tiny.tokenizer import build_tiny_tokenizer
from hybridvla_core.training.trainer import Trainer
from hybridvla_core.transforms.conventions import ActionConvention
from hybridvla_core.transforms.prompt import PromptEncoder, load_tokenizer

LOGGER = logging.getLogger(__name__)

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


def train(config_file: Path, data: Path, work: Path, out: Path, threads: int, summary: Optional[Path],
          init: Optional[Path] = None) -> Dict[str, Any]:
    """Run the recipe and write the checkpoint; started again with the same `work` folder it goes on where it was.

    init: a checkpoint folder to fine-tune. Its statistics and its tokenizer stay, because they are what its numbers mean;
    one whose actions or images mean something else than the recipe's is refused.
    """
    from hybridvla_sim.tasks.blocks.expert import PHASES
    from hybridvla_sim.tasks.blocks.kinematic_world import record_policy_episodes
    from hybridvla_sim.tasks.blocks.task import instructions

    config = load_file(TrainingConfig, config_file)
    if len(config.phase_weights) != len(PHASES):
        raise ConfigurationError(f"{config_file}: phase_weights has {len(config.phase_weights)} entries; give one for each of "
                                 f"the {len(PHASES)} phases")
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    shards = ShardSet.from_folder(data)
    base = _read_base(init) if init is not None else None
    model, action, state = _start(config, shards, base)
    architecture = model.config
    model.vision_backbone.use_fused_attention(False)
    heads = AuxiliaryHeads(architecture.vision_width, architecture.decoder.hidden, architecture.action_dim, len(PHASES))
    tokenizer = build_tiny_tokenizer() if base is None else load_tokenizer(base.tokenizer_file)
    prompts = PromptEncoder(tokenizer, architecture.sequence)
    _check_words(tokenizer, prompts, instructions(), base)
    grid = architecture.towers[0].image_size // architecture.towers[0].patch_size
    source = BatchSource(shards, config, action, state, instruction_ids(prompts.text_ids, instructions()), grid)
    recipe = Recipe(model, heads, source, config)
    due = {int(share * config.policy.steps): index for index, share in enumerate(config.dagger.at)}
    generators = {"batches": source.rng, "images": source.generator, "noise": recipe.generator}
    origin = f"preset {config.preset}" if base is None else f"checkpoint {base.manifest_sha256[:12]}"
    trainer = Trainer(model, heads, config, work, generators, f"{origin} with seed {config.seed}")
    _take_up_rollouts(trainer, shards, due)
    entry = {"action": action.as_json(), "proprio": state.as_json(), "num_transitions": source.first_part}
    checkpoint = CheckpointConfig(
        format=1, model=architecture, convention=CONVENTION, cameras=CAMERAS, image_strategy=IMAGE_STRATEGY,
        ensemble=EnsembleConfig("mean", 0.96, 4, "so3", "diffusion"), ddim_steps=4, autoregressive_condition="denoised",
        statistics_key=STATISTICS_KEY) if base is None else base.config
    statistics = {checkpoint.statistics_key: entry}

    def roll_out(step: int) -> None:
        """Let the averaged model act, and learn from what it gets into (Ross et al. 2011)."""
        if step not in due:
            return
        average = copy.deepcopy(model)
        average.load_state_dict(trainer.average.values)
        path = work / _rollouts_file(due[step])
        policy = batch_policy(average, checkpoint, statistics, tokenizer, instructions(), seed=step)
        result = record_policy_episodes(policy, 500 + due[step], config.dagger.episodes, path,
                                        config.dagger.keyframes, config.dagger.switch_share)
        shards.append(path)
        trainer.rollouts.append(path.name)
        LOGGER.info("step %d: rollouts %.2f successful, %.2f of the switched ones", step, result["success"], result["switched"])

    recipe.run(trainer, roll_out)
    provenance = {"command": f"hybridvla train --config {config_file} --data {data.name}", "seed": config.seed,
                  "samples": len(shards), "seconds": round(trainer.seconds)}
    if base is not None:
        provenance["init"] = base.manifest_sha256
    digest = save_checkpoint(out, trainer.average.values, checkpoint, statistics, tokenizer.to_str(), provenance, torch.float16)
    result = {"checkpoint": str(out), "manifest_sha256": digest, **provenance}
    write_json(summary, result)
    return result


def _start(config: TrainingConfig, shards: ShardSet, base: Optional[Checkpoint]) -> Tuple[HybridVLA, Statistics, Statistics]:
    """The model before its first step, and the statistics of actions and states."""
    if base is None:
        return (HybridVLA(preset(config.preset)).initialise(),
                *(Statistics.of(values.reshape(-1, values.shape[-1]).astype(np.float64), UNSCALED)
                  for values in (shards.column("target"), shards.column("state"))))
    model = HybridVLA(base.config.model)
    read_weights(base, model)
    entry = base.statistics[base.config.statistics_key]
    return model, Statistics.from_json(entry["action"]), Statistics.from_json(entry["proprio"])


def _read_base(folder: Path) -> Checkpoint:
    """Raises CheckpointError where its actions or images mean something else than the labels and images of the recipe."""
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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else repr(value)


def _check_words(tokenizer: Tokenizer, prompts: PromptEncoder, texts: Sequence[str], base: Optional[Checkpoint]) -> None:
    """The recipe points at nouns by their place in the sentence: every word must be one token, and one it knows."""
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


def _rollouts_file(index: int) -> str:
    return f"rollouts-{index}.npz"


def _take_up_rollouts(trainer: Trainer, shards: ShardSet, due: Dict[int, int]) -> None:
    """Those that the run had made when its state was written, and no later ones: these are made again."""
    if trainer.rollouts is None:
        passed = math.inf if "policy" in trainer.done else trainer.step if trainer.stage == "policy" else 0
        trainer.rollouts = [_rollouts_file(index) for step, index in sorted(due.items()) if 0 < step <= passed]
    for name in trainer.rollouts:
        path = trainer.folder / name
        if not path.exists():
            raise HybridVLAError(f"{path} is missing, and the run has learnt from it; put it back, or give another --work "
                                 "folder")
        shards.append(path)
