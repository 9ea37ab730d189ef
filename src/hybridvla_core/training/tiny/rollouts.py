"""A model under training as a policy over a batch of worlds."""
from __future__ import annotations

import math
from typing import Any, Dict, Mapping, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer

from hybridvla_core.checkpoints.config import CheckpointConfig
from hybridvla_core.data.shards import ShardSet
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.training.tiny.world import BatchPolicy
from hybridvla_core.training.trainer import Trainer
from hybridvla_core.transforms.images import to_pixels
from hybridvla_core.transforms.normalise import Normaliser
from hybridvla_core.transforms.prompt import PromptEncoder


def batch_policy(model: HybridVLA, config: CheckpointConfig, statistics: Mapping[str, Any], tokenizer: Tokenizer,
                 texts: Sequence[str], seed: int) -> BatchPolicy:
    """Makes a policy that acts in many worlds at once.

    Every other row is acted by the tokens instead of by diffusion, so that the states of both paths are met.

    Args:
        model: With the weights that act.
        config: Of its checkpoint.
        statistics: Of its data.
        tokenizer: Of its language model.
        texts: The instructions that are chosen from.
        seed: Draws the noise.

    Returns:
        Images (B, S, S, 3), states (B, A) and numbers of instructions (B,) to actions (B, A), physical units.
    """
    engine = PlainDecoding(model.eval())
    normaliser = Normaliser.from_json(statistics, config.statistics_key, config.model.action_dim, "training")
    prompts = PromptEncoder(tokenizer, config.model.sequence)
    ids = torch.tensor([prompts.prefix_ids(text) for text in texts])
    generator = torch.Generator().manual_seed(seed)
    grippers = tuple(range(6, config.model.action_dim, 7))

    @torch.inference_mode()
    def act(images: np.ndarray, states: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        rows = [to_pixels([image], config.cameras, config.model.towers, config.image_strategy) for image in images]
        pixels = {kind: torch.stack([row[kind] for row in rows]) for kind in rows[0]}
        state = torch.from_numpy(normaliser.state.normalise(states)).float()
        prefix = engine.prefix(engine.encode(pixels), ids[torch.as_tensor(chosen)], state)
        noise = torch.randn(len(images), config.model.chunk, config.model.action_dim, generator=generator)
        denoised = engine.denoise(prefix, noise, config.ddim_steps)
        decoded = engine.decode(prefix, denoised.clamp(-1, 1), torch.zeros(len(images), dtype=torch.long))
        actions = denoised[:, 0].double().numpy()
        actions[1::2] = decoded.values.numpy()[1::2]
        return normaliser.action.unnormalise(actions, grippers)

    return act


def rollouts_file(index: int) -> str:
    """Returns the name of a run's shard of rollouts."""
    return f"rollouts-{index}.npz"


def take_up_rollouts(trainer: Trainer, shards: ShardSet, due: Dict[int, int]) -> None:
    """Adds the rollouts that the run had made when its state was written, and no later ones: these are made again."""
    if trainer.rollouts is None:
        passed = math.inf if "policy" in trainer.done else trainer.step if trainer.stage == "policy" else 0
        trainer.rollouts = [rollouts_file(index) for step, index in sorted(due.items()) if 0 < step <= passed]
    for name in trainer.rollouts:
        path = trainer.folder / name
        if not path.exists():
            raise HybridVLAError(f"{path} is missing, and the run has learnt from it; put it back, or give another --work "
                                 "folder")
        shards.append(path)
