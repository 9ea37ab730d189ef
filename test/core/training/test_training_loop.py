"""The loop around a stage, on a model of one number: time, divergence, and the checks of its configuration."""
from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from hybridvla_core.configuration import from_mapping
from hybridvla_core.errors import ConfigurationError, HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.training import trainer as loop
from hybridvla_core.training.config import StageConfig
from hybridvla_core.training.tiny.config import TrainingConfig

VALUES = yaml.safe_load((ROOT / "config/training/tiny.yaml").read_text())
STAGE = StageConfig(steps=6, images=1, labels=1, learning_rate=0.1)


def config(**changes):
    return from_mapping(TrainingConfig, dict(VALUES, bfloat16=False, save_every_s=0.0, **changes), "recipe.yaml")


class Run:
    """One start of a run: a number is drawn towards noise from both kinds of generator."""

    def __init__(self, folder, seed=3):
        torch.manual_seed(0)
        self.model, self.drawn = nn.Linear(1, 1), []
        self.torch, self.numpy = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
        self.trainer = loop.Trainer(self.model, nn.Linear(1, 1), config(), folder,
                                    {"torch": self.torch, "numpy": self.numpy}, "test")

    def losses(self, step, share):
        self.drawn.append((float(torch.rand(1, generator=self.torch)), float(self.numpy.random()), float(torch.rand(1))))
        return {"term": (self.model.weight.sum() - sum(self.drawn[-1])) ** 2}

    def go(self, losses=None, hooks=lambda step: None):
        self.trainer.run("stage", STAGE, [{"params": list(self.model.parameters()), "scale": 1.0}], losses or self.losses,
                         hooks)


def interrupt(step):
    if step == 4:
        raise KeyboardInterrupt


def test_a_resumed_stage_draws_what_it_would_have_drawn(tmp_path):
    whole = Run(tmp_path / "whole")
    whole.go()
    first = Run(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        first.go(hooks=interrupt)     # before step 4 is saved: it is done again
    second = Run(tmp_path / "parts", seed=99)
    second.go()
    assert first.drawn[:3] + second.drawn == whole.drawn
    assert torch.equal(second.model.weight, whole.model.weight)
    assert torch.equal(second.trainer.average.values["weight"], whole.trainer.average.values["weight"])


def test_seconds_of_an_interrupted_stage_are_kept(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    first = Run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        first.go(hooks=interrupt)
    second = Run(tmp_path)
    assert 3.0 <= second.trainer.seconds == first.trainer.seconds
    second.go()
    assert second.trainer.seconds >= first.trainer.seconds + 3.0


@pytest.mark.parametrize("what, factor", [("loss", float("nan")), ("loss", float("inf")), ("gradient", 0.0)])
def test_a_run_that_diverges_says_so_and_keeps_the_state_before_it(tmp_path, what, factor):
    run = Run(tmp_path)

    def losses(step, share):
        term = run.losses(step, share)["term"]
        if step < 3:
            return {"term": term}
        # The square root is finite at 0, its slope is not.
        return {"good": term, "bad": factor * term if what == "loss" else torch.sqrt(0.0 * run.model.weight.sum())}

    with pytest.raises(HybridVLAError, match=f"the {what} of stage stage is not finite at step 3 .*bad .*learning_rate"):
        run.go(losses)
    again = Run(tmp_path)
    assert again.trainer.step == 3 and torch.isfinite(again.model.weight).all()


@pytest.mark.parametrize("changes, words", [
    (dict(augment=dict(VALUES["augment"], contrast=1.0)), "contrast is 1.0"),
    (dict(augment=dict(VALUES["augment"], state_angle_rad=-0.1)), "state_angle_rad is -0.1"),
    (dict(augment=dict(VALUES["augment"], pixel_noise=float("nan"))), "augment.pixel_noise is nan"),
    (dict(gradient_clip=0.0), "gradient_clip is 0.0"),
    (dict(betas=[0.9, 1.0]), r"betas is \[0.9, 1.0\]"),
    (dict(betas=[0.9]), "two numbers"),
    (dict(weight_decay=-0.01), "weight_decay is -0.01"),
    (dict(warmup_steps=-1), "warmup_steps is -1"),
    (dict(phase_weights=[0.5, -0.5]), "phase_weights"),
    (dict(ema=1.0), "ema is 1.0"),
])
def test_a_recipe_value_out_of_range_is_named(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        config(**changes)


def test_saving_more_often_than_always_is_refused():
    with pytest.raises(ConfigurationError, match="save_every_s is -1"):
        from_mapping(TrainingConfig, dict(VALUES, save_every_s=-1.0), "recipe.yaml")
