"""Losses of the tokens and of the decoder's attention, and noise on the state."""
from __future__ import annotations

import dataclasses
import re
import sys

import numpy as np
import pytest
import torch
import toy_data
from small_policy import CONVENTION

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.paths import ROOT
from hybridvla_core.training import losses
from hybridvla_core.training.augment import disturb
from hybridvla_core.training.lora import LoraConfig, add_adapters
from hybridvla_core.training.progress import RunLog
from hybridvla_core.transforms.normalise import Scale


def token_loss(*arguments):
    return losses.token_losses(*arguments).mean()


@pytest.mark.parametrize("soften", [0.0, 0.5, 5.0])
def test_token_loss_prefers_the_labelled_bin(soften):
    targets = torch.tensor([10, 14, 2])  # the last one is not an action id (EOS)
    good, bad = torch.zeros(3, 20), torch.zeros(3, 20)
    good[torch.arange(3), targets] = 5.0
    bad[:, 4] = 5.0
    assert token_loss(good, targets, 8, 12, soften) < token_loss(bad, targets, 8, 12, soften)


def test_softened_loss_counts_a_near_miss_less():
    targets = torch.tensor([14])
    near, far = torch.zeros(1, 20), torch.zeros(1, 20)
    near[0, 13] = far[0, 9] = 4.0
    assert token_loss(near, targets, 8, 12, 2.0) < token_loss(far, targets, 8, 12, 2.0)
    assert torch.isclose(token_loss(near, targets, 8, 12, 0.0), token_loss(far, targets, 8, 12, 0.0))


def test_attention_loss_ignores_hidden_objects():
    scores = torch.zeros(1, 1, 2, 9)
    scores[0, 0, 0, 3] = 6.0  # key 3 is patch 2
    target = torch.zeros(1, 2, 4)
    target[0, 0, 2] = 1.0
    assert losses.attention_loss(scores, target) < 0.1
    target[0, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert losses.attention_loss(scores, target) > 3.0

def test_noise_on_the_state_leaves_the_place_that_an_action_leads_to():
    state, actions = np.arange(14.0), np.ones((3, 14))
    shifts = np.random.default_rng(0).standard_normal(14)
    seen, relative = disturb(state, actions, shifts, moves_base=True)
    np.testing.assert_allclose(seen - state, shifts)
    for arm in (0, 7):
        np.testing.assert_allclose(seen[arm:arm + 3] + relative[0, arm:arm + 3], state[arm:arm + 3] + actions[0, arm:arm + 3])
        np.testing.assert_allclose(relative[0, arm + 3:arm + 7], 1.0)
    np.testing.assert_allclose(relative[1:], 1.0)
    np.testing.assert_allclose(disturb(state, actions, shifts, moves_base=False)[1], actions)
    assert (actions == 1.0).all()


def test_state_noise_is_drawn_anew_each_step_and_is_of_the_size_that_was_asked_for(tmp_path, monkeypatch):
    toy_data.add_preset(monkeypatch)
    config = toy_data.config(state_noise=dict(position_m=0.01, gripper=0.1), batch=64)
    still = toy_data.config(batch=64)
    feeds = [toy_data.feed(tmp_path, each) for each in (config, still)]
    with_noise, again = feeds[0].training(0, 5, 64), feeds[0].training(0, 5, 64)
    assert bool((with_noise.state == again.state).all())
    plain, other = feeds[1].training(0, 5, 64), feeds[0].training(0, 6, 64)
    moved = with_noise.state - plain.state
    assert 0.5 < float(moved[:, 6].std()) / 0.1 < 2.0 and float(moved[:, 3:6].abs().max()) < 1e-6
    assert float(moved[:, :3].std()) > 0 and not bool((other.state - feeds[1].training(0, 6, 64).state == moved).all())


@pytest.mark.parametrize("base, source, starts", [("measured", "measured", True), ("commanded", "last_command", True),
                                                  ("commanded", "measured", False), ("measured", "last_command", False)])
def test_noise_moves_an_action_only_if_it_starts_from_the_state_that_the_model_sees(tmp_path, monkeypatch, base, source, starts):
    toy_data.add_preset(monkeypatch)
    monkeypatch.setattr(Scale, "normalise", lambda self, values: values)      # batches in m and rad, and nothing is clipped
    toy_data.write(tmp_path / "toy", convention={**dataclasses.asdict(CONVENTION), "delta_base": base, "state_source": source})
    noise = dict(position_m=0.01, angle_rad=0.02, gripper=0.1)
    plain, noisy = (toy_data.feed(tmp_path, toy_data.config(chunk=2, **changes)).training(0, 0, 8)
                    for changes in ({}, dict(state_noise=noise)))
    moved, changed = noisy.state - plain.state, noisy.actions - plain.actions
    assert bool((moved != 0).all())
    assert torch.allclose(changed[:, 0, :3], -moved[:, :3] if starts else torch.zeros(8, 3), atol=1e-6)
    assert not changed[:, 0, 3:].any() and not changed[:, 1:].any()


@pytest.mark.parametrize("package, module, use", [
    ("peft", "peft", lambda folder: add_adapters(torch.nn.Linear(2, 2), LoraConfig(rank=1), 0)),
    ("tensorboard", "torch.utils.tensorboard", lambda folder: RunLog(folder, 0, tensorboard=True))])
def test_a_package_that_few_trainings_need_is_named_with_the_command_to_install_it(tmp_path, monkeypatch, package, module, use):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=rf"needs the package {package} .*\.venv/bin/pip install --no-deps -r") as caught:
        use(tmp_path)
    locks = re.findall(r"requirements/\w+/\w+\.txt", str(caught.value))
    assert len(locks) == 2
    for lock in locks:
        assert re.search(rf"^{package}==", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE), lock
