"""The recorded losses and gradients of the released trainer, through the general recipe: one prefix for all noisy copies."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from goldens import GOLDEN, needs_golden

from hybridvla_core.checkpoints.released import load_released
from hybridvla_core.training.hybrid.batch import Batch
from hybridvla_core.training.hybrid.config import ObjectiveConfig, StageConfig
from hybridvla_core.training.hybrid.draws import Noise, NoiseDraw
from hybridvla_core.training.hybrid.objective import HybridObjective
from hybridvla_core.training.hybrid.stages import choose_parameters
from hybridvla_core.transforms.images import PreparedImage

VARIANTS = ("llama_7dof", "llama_14dof_gqa", "phi_7dof")
STAGES = ("v1/finetune/R1", "v1/finetune/R4", "v1/full-finetune/R1", "v3/finetune/R1", "v3/finetune/R4")
VIEWS = ("front", "wrist", "wrist_left")
pytestmark = needs_golden


class Recorded:
    """One variant: its model, its batches, and the released trainer's results for them."""

    def __init__(self, variant):
        folder = GOLDEN / variant
        self.arrays, self.description = np.load(folder / "train.npz"), json.loads((folder / "train.json").read_text())
        self.images = np.load(GOLDEN / "common/images.npz")
        self.model, _ = load_released(folder / "run", folder / "dims.json")
        self.config = self.model.config
        self.strategy = "letterbox" if self.config.towers[0].kind == "clip" else "resize-naive"

    def pixels(self, views):
        index = self.description[f"{views}/image_index_per_sample"]
        samples = []
        for sample in range(2):
            fitted = [PreparedImage(self.images[f"img{index[view][sample]}"], view, self.config.towers, self.strategy).fitted
                      for view in VIEWS if view in index]
            samples.append({key: np.stack([view[key] for view in fitted]) for key in fitted[0]})
        return {key: torch.from_numpy(np.stack([sample[key] for sample in samples])) for key in samples[0]}

    def batch(self, views, stage=None, repeats=1):
        """Return the recorded batch; the text is cut where the released code's count from the end leads."""
        ids, mask = (torch.from_numpy(self.arrays[f"{views}/{name}"]) for name in ("input_ids", "attention_mask"))
        actions = torch.from_numpy(self.arrays[f"{views}/actions"])
        size = self.config.action_dim
        behind = size + 2 + len(self.config.sequence.after_eod)
        texts, targets = [], []
        for row, length in zip(ids, mask.sum(1)):
            texts.append(row[1:length - behind])
            targets.append(row[length - size - 1:length])
        lengths = torch.tensor([len(text) for text in texts])
        text = torch.full((2, int(lengths.max())), self.config.sequence.pad)
        for row, part in enumerate(texts):
            text[row, :len(part)] = part
        targets = torch.stack(targets)
        noise = (self.noise(stage, repeats, actions) if stage
                 else Noise(ObjectiveConfig(), 4, "released").draw(0, 0, 0, 2, slice(0, 2), actions))
        return Batch(self.pixels(views), None, text, lengths, torch.from_numpy(self.arrays[f"{views}/proprio"])[:, 0], actions,
                     torch.zeros(2, 1, dtype=torch.bool), targets[:, :-1], targets, noise)

    def noise(self, stage, repeats, actions):
        # Recorded rows are sample 0, 1, 0, 1, ...
        noise = torch.from_numpy(self.arrays[f"{stage}/noise"]).unflatten(0, (repeats, 2)).transpose(0, 1)
        timesteps = torch.from_numpy(self.arrays[f"{stage}/timestep"]).unflatten(0, (repeats, 2)).transpose(0, 1)
        noisy, target = Noise(ObjectiveConfig(), 4, "released").noisy(actions, timesteps, noise)
        recorded = torch.from_numpy(self.arrays[f"{stage}/x_t"]).unflatten(0, (repeats, 2)).transpose(0, 1)
        torch.testing.assert_close(noisy, recorded, atol=1e-5, rtol=0)
        zero = torch.zeros(2, dtype=torch.long)
        return NoiseDraw(timesteps, noisy, target, torch.ones(timesteps.shape), actions, zero)


@pytest.fixture(scope="module", params=VARIANTS)
def recorded(request):
    return Recorded(request.param)


def losses(recorded, views, train, batch, terms, repeats, state="embedding", parts=2):
    """Return the mean of each term, with its gradients left in the model. The batch is processed in parts of `parts` samples."""
    model = recorded.model
    model.config = replace(recorded.config, views=int(views[1]), sequence=replace(recorded.config.sequence, state=state))
    model.zero_grad(set_to_none=True)
    objective = HybridObjective(model, ObjectiveConfig(repeats=repeats), recorded.strategy)
    choose_parameters(objective, StageConfig("stage", 1, train), model.config.decoder.layers, False)
    counts, sums = objective.counts(batch, terms), dict.fromkeys(terms, 0.0)
    for piece in batch.parts(parts):
        found = objective(piece, terms)
        sum(found[name] / counts[name] for name in terms).backward()
        sums = {name: sums[name] + float(found[name].detach()) / counts[name] for name in terms}
    return sums


@pytest.mark.parametrize("parts", [2, 1])
@pytest.mark.parametrize("stage", STAGES)
def test_losses_and_gradients_are_the_released_ones(recorded, stage, parts):
    views, kind, repeats = stage.split("/")
    repeats = int(repeats[1:])
    train = {"finetune": "finetune", "full-finetune": "full"}[kind]
    found = losses(recorded, views, train, recorded.batch(views, stage, repeats), frozenset({"diffusion", "tokens"}), repeats,
                   parts=parts)
    for name, key in (("diffusion", "loss_diffusion"), ("tokens", "loss_ce")):
        assert found[name] == pytest.approx(float(recorded.arrays[f"{stage}/{key}"]), abs=1e-4)
    parameters = dict(recorded.model.named_parameters())
    compared = 0
    for name in recorded.arrays.files:
        if not name.startswith(f"{stage}/grad/"):
            continue
        expected = recorded.arrays[name]
        gradient = parameters[name.split("/grad/")[1].replace("llm_backbone.", "")].grad
        actual = np.zeros_like(expected) if gradient is None else gradient.numpy()
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(actual / scale, expected / scale, atol=1e-4, rtol=0, err_msg=name)
        compared += 1
    assert compared >= 5
    for module, expected in recorded.description[f"{stage}/grad_l2_norm_per_module"].items():
        stem = "llm." if module == "llm_backbone" else f"{module}."
        squares = sum(float(p.grad.double().square().sum()) for name, p in recorded.model.named_parameters()
                      if name.startswith(stem) and p.grad is not None)
        assert squares ** 0.5 == pytest.approx(expected, abs=1e-4 * max(1.0, expected)), module


@pytest.mark.versions
def test_tokens_alone_are_the_released_ones(recorded):
    found = losses(recorded, "v1", "finetune", recorded.batch("v1"), frozenset({"tokens"}), 1, state="none")
    assert found["tokens"] == pytest.approx(float(recorded.arrays["v1/ar_only/loss_ce"]), abs=1e-4)
