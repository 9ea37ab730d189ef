"""Layout, losses, targets and batches of the training recipe."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from hybridvla_core.data.shards import ShardSet
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.training import losses
from hybridvla_core.training.layout import Layout
from hybridvla_core.training.tiny.targets import coverage, patch_targets
from hybridvla_core.transforms.normalise import Scale

LAYOUT = Layout(patches=4, text=3, labels=2, copies=2, chunk=1, action=7)


def tokens_seen(query):
    return set(torch.nonzero(LAYOUT.mask()[0, 0, query]).flatten().tolist())


def test_a_noise_copy_sees_its_label_and_itself_only():
    start = LAYOUT.prefix + LAYOUT.block  # second label
    query = start + int(LAYOUT.noise_at[1, 0])  # second copy
    expected = set(range(LAYOUT.prefix)) | set(range(start, start + LAYOUT.label_prefix)) | {query - 1, query}
    assert tokens_seen(query) == expected


def test_the_token_branch_sees_no_noise_copy():
    start = LAYOUT.prefix
    query = start + int(LAYOUT.tokens_at[-1])
    copies = range(start + LAYOUT.label_prefix, start + LAYOUT.label_prefix + LAYOUT.copies * LAYOUT.branch)
    assert tokens_seen(query).isdisjoint(copies)
    assert query == start + LAYOUT.block - 1
    assert tokens_seen(query) == set(range(query + 1)) - set(copies)


def test_positions_restart_in_every_branch():
    positions = LAYOUT.positions()
    assert len(positions) == LAYOUT.length
    block = positions[LAYOUT.prefix + LAYOUT.block:]
    first = LAYOUT.prefix + LAYOUT.label_prefix
    assert block[LAYOUT.noise_at].flatten().tolist() == [first + 1, first + 1]
    assert block[LAYOUT.tokens_at].tolist() == list(range(first + 2, first + 2 + 8))


def test_noise_is_retargeted_at_the_true_action():
    generator = torch.Generator().manual_seed(0)
    action = torch.rand(5, 3, 1, 7, generator=generator)
    abar = torch.full((5, 3), 0.6)
    x, noise = losses.noisy_action(action, abar, 0.3, generator)
    recovered = (x - (1 - 0.6) ** 0.5 * noise) / 0.6 ** 0.5
    assert torch.allclose(recovered, action, atol=1e-5)


@pytest.mark.parametrize("soften", [0.0, 0.5, 5.0])
def test_token_loss_prefers_the_labelled_bin(soften):
    targets = torch.tensor([10, 14, 2])  # the last is no action id (EOS)
    good, bad = torch.zeros(3, 20), torch.zeros(3, 20)
    good[torch.arange(3), targets] = 5.0
    bad[:, 4] = 5.0
    assert losses.token_loss(good, targets, 8, 12, soften) < losses.token_loss(bad, targets, 8, 12, soften)


def test_softened_loss_counts_a_near_miss_less():
    targets = torch.tensor([14])
    near, far = torch.zeros(1, 20), torch.zeros(1, 20)
    near[0, 13] = far[0, 9] = 4.0
    assert losses.token_loss(near, targets, 8, 12, 2.0) < losses.token_loss(far, targets, 8, 12, 2.0)
    assert torch.isclose(losses.token_loss(near, targets, 8, 12, 0.0), losses.token_loss(far, targets, 8, 12, 0.0))


def test_attention_loss_ignores_hidden_objects():
    scores = torch.zeros(1, 1, 2, 9)
    scores[0, 0, 0, 3] = 6.0  # key 3 is patch 2
    target = torch.zeros(1, 2, 4)
    target[0, 0, 2] = 1.0
    assert losses.attention_loss(scores, target) < 0.1
    target[0, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert losses.attention_loss(scores, target) > 3.0


def test_patch_targets_name_the_object_that_fills_the_patch():
    seg = np.zeros((1, 8, 8), dtype=np.uint8)
    seg[0, 4:, 4:] = 6
    samples = {"seg": seg, "block_pos": np.zeros((1, 4, 3)), "pad_pos": np.full((1, 4, 2), 0.5),
               "block_yaw": np.zeros((1, 4))}
    assert coverage(seg, 2)[0, 5].tolist() == [0.0, 0.0, 0.0, 1.0]
    targets = patch_targets(samples, 2)
    assert targets["class"].tolist() == [[0, 0, 0, 6]]
    assert torch.allclose(targets["position"][0, 3, 1], torch.tensor(0.5 / 0.15))


def test_a_channel_that_never_varies_is_constant():
    values = np.random.default_rng(0).normal(size=(100, 3))
    values[:, 1] = 0.25
    constant = Scale.of(values, unmasked=())
    assert constant.constant.tolist() == [False, True, False]
    assert not constant.normalise(values)[:, 1].any()
    assert np.all(constant.unnormalise(np.array([[-1.0] * 3, [1.0] * 3]), ())[:, 1] == 0.25)
    scale = Scale.of(values, unmasked=(1,))
    assert np.allclose(scale.normalise(values)[:, 1], 0.25)
    cut = np.mean(np.abs(scale.normalise(values)[:, 0]) == 1.0)
    assert 0.0 < cut <= 0.04, "the tails are cut on both sides, and little else"


def write_shard(path, count, **changes):
    arrays = {"images": np.zeros((count, 8, 8, 3), np.uint8), "seg": np.zeros((count, 8, 8), np.uint8),
              "block_pos": np.zeros((count, 4, 3)), "block_yaw": np.zeros((count, 4)),
              "pad_pos": np.zeros((count, 4, 2)), "state": np.arange(count)[:, None] * np.ones((1, 7)),
              "target": np.zeros((count, 16, 7)), "phase": np.zeros((count, 16), np.uint8)}
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_shards_are_one_table(tmp_path):
    write_shard(tmp_path / "a.npz", 3)
    write_shard(tmp_path / "b.npz", 2)
    shards = ShardSet.from_folder(tmp_path)
    assert len(shards) == 5
    assert shards.take(np.array([4, 0, 3]))["state"][:, 0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("changes, message", [({"phase": None}, "phase.*missing"),
                                              ({"target": np.zeros((3, 4, 7))}, "target.*shape")])
def test_a_shard_that_does_not_fit_is_refused_by_name(tmp_path, changes, message):
    write_shard(tmp_path / "a.npz", 3, **changes)
    with pytest.raises(HybridVLAError, match=message):
        ShardSet.from_folder(tmp_path)


def test_no_shards_is_one_sentence(tmp_path):
    with pytest.raises(HybridVLAError, match="no .npz shards"):
        ShardSet.from_folder(tmp_path)
