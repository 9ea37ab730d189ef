"""Restores torch's number of threads after each test, because a benchmark sets it for its whole process."""
from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
