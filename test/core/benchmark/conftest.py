"""A benchmark sets torch's threads for its whole process; the next test has those it would have had without."""
from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
