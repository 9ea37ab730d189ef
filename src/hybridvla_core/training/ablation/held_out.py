"""Distance of a trained model's predictions from the validation labels, for every sequence of the paper's table 1.

The policy predicts on a cached prefix, and cannot use a model that was trained without noise (Ex4 of table 3). Here whole
sequences go through the model, as in training, and the answer is filled in piece by piece. This is slow, but the same for
every kind of training.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np
import torch

from hybridvla_core.checkpoints.weights import load_into, weight_files
from hybridvla_core.data.mixture import by_size
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.schedule import DiffusionSchedule
from hybridvla_core.training.hybrid.batch import Batch
from hybridvla_core.training.hybrid.config import TrainingConfig
from hybridvla_core.training.hybrid.feed import Feed
from hybridvla_core.training.hybrid.objective import HybridObjective
from hybridvla_core.training.hybrid.rows import plan_of
from hybridvla_core.training.hybrid.start import prepare
from hybridvla_core.transforms.normalise import Scale
from hybridvla_core.transforms.prompt import PromptEncoder

SIZE = 50


@dataclass(frozen=True)
class Predicted:
    """Normalised actions (B, A) of both paths; None if the path was not trained."""

    diffusion: Optional[torch.Tensor]
    tokens: Optional[torch.Tensor]


@torch.no_grad()
def predict(objective: HybridObjective, batch: Batch, diffusion: bool, tokens: bool, steps: int, seed: int) -> Predicted:
    """Predicts the first action of each sample, without using the labels in the batch.

    Args:
        objective: Objective with the model.
        batch: Batch of the validation.
        diffusion: Whether the diffusion path was trained.
        tokens: Whether the token path was trained.
        steps: Number of DDIM steps.
        seed: Seed of the noise.

    Returns:
        The action of each path, (B, A) normalised; None for a path that was not trained.
    """
    kind = objective.model.config.sequence.kind
    batch = replace(batch, tokens=torch.full_like(batch.tokens, objective.tokens.first))
    if kind == 4 and tokens:
        batch = _decoded(objective, batch, noise=False)
    clean = _denoised(objective, batch, tokens and kind == 4, steps, seed) if diffusion else None
    if tokens and kind != 4:
        if clean is not None:
            batch = _with_noise(batch, clean.clamp(-1.0, 1.0), 0)
        batch = _decoded(objective, batch, noise=clean is not None)
    return Predicted(None if clean is None else clean[:, 0].double(),
                     objective.tokens.decode(batch.tokens) if tokens else None)


def errors_mm(folder: Path, config: TrainingConfig, data: Sequence[Path], seed: int = 0) -> Dict[str, List[float]]:
    """Returns the distance of every validation frame's predicted target from its label, mm, by path (`diffusion`, `tokens`).

    Args:
        folder: Checkpoint that the recipe wrote.
        config: The recipe.
        data: Data sets that it was trained on.
        seed: Seed of the noise that is denoised.
    """
    start = prepare(config, data, None)
    model = HybridVLA(start.model)
    load_into(model, folder, weight_files(folder))
    objective = HybridObjective(model, config.objective, start.checkpoint.image_strategy).eval()
    sizes = {frames.name: len(frames.train) for frames in start.sets}
    feed = Feed(start.sets, by_size(sizes), PromptEncoder(start.tokenizer, start.model.sequence), start.checkpoint, config,
                lambda size: slice(0, size))
    scale = start.sets[0].scales.action
    found: Dict[str, List[float]] = {"diffusion": [], "tokens": []}
    for number, frames in enumerate(feed.validation(SIZE)):
        batch = feed.validation_batch(number, frames)
        made = predict(objective, batch, config.objective.diffusion > 0, config.objective.tokens > 0,
                       start.checkpoint.ddim_steps, seed + number)
        truth = _metres(scale, batch.actions[:, 0].double())
        for name, action in (("diffusion", made.diffusion), ("tokens", made.tokens)):
            if action is not None:
                apart = np.linalg.norm(_metres(scale, action) - truth, axis=1) * 1e3
                found[name] += [round(float(value), 2) for value in apart]
    return found


def _denoised(objective: HybridObjective, batch: Batch, tokens: bool, steps: int, seed: int) -> torch.Tensor:
    """Returns the actions (B, K, A) after all steps."""
    spaced = DiffusionSchedule().ddim(steps)
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal(batch.actions.shape)).float()
    for index in reversed(range(steps)):
        now = _with_noise(batch, x, int(spaced.timesteps[index]))
        plan = plan_of(objective.model.config, now.text.shape[1], 1, True, tokens, False)
        hidden = _hidden(objective, now, tokens, noise=True)
        noise = objective.model.noise_prediction(hidden[:, plan.noise_at() - plan.text_at]).float()[:, 0]
        x = spaced.step(index, x, noise)[1]
    return x


def _decoded(objective: HybridObjective, batch: Batch, noise: bool) -> Batch:
    """Returns the batch with the most likely action tokens, decoded one after the other."""
    for place in range(batch.tokens.shape[1]):
        plan = plan_of(objective.model.config, batch.text.shape[1], 1, noise, True, False)
        hidden = _hidden(objective, batch, True, noise)
        at = (plan.tokens_from(batch.lengths) - plan.text_at)[:, -1, place]
        logits = objective.model.llm.logits(hidden[torch.arange(len(hidden)), at])
        first = objective.tokens.first
        chosen = logits[:, first:objective.tokens.end].argmax(-1) + first
        tokens = batch.tokens.clone()
        tokens[:, place] = chosen
        batch = replace(batch, tokens=tokens)
    return batch


def _hidden(objective: HybridObjective, batch: Batch, tokens: bool, noise: bool) -> torch.Tensor:
    """Returns the hidden states of the rows after the patches, with one noisy copy that the tokens follow."""
    plan = plan_of(objective.model.config, batch.text.shape[1], 1, noise, tokens, False)
    return objective.hidden(plan, batch)


def _with_noise(batch: Batch, x: torch.Tensor, timestep: int) -> Batch:
    """Returns the batch with x (B, K, A) as its only noisy copy."""
    steps = torch.full((len(batch), 1), timestep)
    return replace(batch, noise=replace(batch.noise, noisy=x[:, None].float(), timesteps=steps))


def _metres(scale: Scale, actions: torch.Tensor) -> np.ndarray:
    """Returns positions (B, 3) of normalised actions, m."""
    found: np.ndarray = scale.unnormalise(actions.numpy(), ())[:, :3]
    return found
