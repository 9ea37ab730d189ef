"""Which scheduler the filter's thread gets, and what it reports about it."""
from __future__ import annotations

import errno
import os

import pytest

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.runtime.pacing import PRIORITY, use_scheduler


@pytest.fixture
def asked(monkeypatch):
    """Record the calls to the kernel; with `refusal` set, they are refused."""
    class Kernel:
        calls, refusal = [], None

        def set(self, process, policy, parameter):
            self.calls.append((process, policy, parameter.sched_priority))
            if self.refusal is not None:
                raise self.refusal
    kernel = Kernel()
    kernel.calls = []
    monkeypatch.setattr(os, "sched_setscheduler", kernel.set)
    return kernel


def test_ordinary_is_what_was_asked_for_and_the_kernel_is_left_alone(asked):
    assert use_scheduler("ordinary") == "ordinary scheduler, as asked for" and asked.calls == []


def test_fifo_granted_is_named_with_its_priority(asked):
    assert use_scheduler("fifo") == f"SCHED_FIFO {PRIORITY}"
    assert asked.calls == [(0, os.SCHED_FIFO, PRIORITY)]


@pytest.mark.parametrize("refusal", [PermissionError(errno.EPERM, "Operation not permitted"),
                                     OSError(errno.EINVAL, "Invalid argument")])
def test_fifo_refused_goes_on_with_a_sentence_that_says_what_to_do(asked, refusal):
    asked.refusal = refusal
    said = use_scheduler("fifo")
    assert said.startswith("ordinary scheduler (SCHED_FIFO is not permitted") and refusal.strerror in said
    assert "rtprio in limits.conf" in said and asked.calls


def test_an_unknown_one_is_refused_with_the_choices(asked):
    with pytest.raises(HybridVLAError, match="scheduler is 'idle'; use one of fifo, ordinary"):
        use_scheduler("idle")
    assert asked.calls == []
