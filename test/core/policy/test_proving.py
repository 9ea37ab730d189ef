"""What a pass over a draft proves: exact numbers in few operations, because each one costs a small model time."""
from __future__ import annotations

import pytest
import torch

from hybridvla_core.benchmark.operations import OperationCounter
from hybridvla_core.model.presets import tiny
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.policy.inference.drafts import Examined, examine, merge

#: Operations for seven tokens. Separate logsumexps over the vocabulary and the window took 26.
MOST_OPERATIONS = 24


@pytest.mark.parametrize("window", [0, 4])
def test_proving_gives_the_probabilities_of_the_whole_vocabulary_in_few_operations(window):
    config = tiny()
    tokens = ActionTokens(config)
    generator = torch.Generator().manual_seed(window)
    logits = 4.0 * torch.randn(3, 7, config.decoder.vocab_rows, generator=generator)
    logits[:, :5, tokens.first:tokens.end] += 9.0
    logits[:, 0, tokens.end - 1] += 40.0     # at the edge of the range, and beyond float32's exp without its maximum
    ids = logits.argmax(dim=-1)
    with OperationCounter() as counter:
        found = examine(logits, ids[:, :-1], window, tokens)
    assert counter.count <= MOST_OPERATIONS
    assert torch.equal(found.ids, ids) and found.exact.tolist() == [7, 7, 7]
    probability = logits.double().softmax(dim=-1)
    for row in range(3):
        for place in range(7):
            chosen = int(ids[row, place])
            near = range(max(chosen - window, tokens.first), min(chosen + window + 1, tokens.end))
            expected = float(probability[row, place, list(near)].sum()) if tokens.first <= chosen < tokens.end else 0.0
            assert float(found.confidence[row, place]) == pytest.approx(expected, abs=1e-6)


def test_a_pass_from_farther_on_proves_nothing_of_a_row_that_ended_before():
    confidence = torch.ones(2, 7)
    before = Examined(torch.zeros(2, 7, dtype=torch.long), confidence, torch.tensor([2, 4]))
    after = Examined(torch.ones(2, 3, dtype=torch.long), confidence[:, 4:], torch.tensor([3, 2]))
    found = merge(before, after, 4)
    assert found.exact.tolist() == [2, 6], "the first row ended early: what it was fed from the fifth token on is a guess"
    assert found.ids[1].tolist() == [0, 0, 0, 0, 1, 1, 1]
