"""Losses of the tokens and of the decoder's attention."""
from __future__ import annotations

import pytest
import torch

from hybridvla_core.training import losses


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
