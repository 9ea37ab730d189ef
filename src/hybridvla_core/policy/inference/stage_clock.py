"""Durations of the stages of a prediction."""
from __future__ import annotations

import time
from typing import Any, Dict, List, Tuple

import torch


class StageClock:
    """Measures the stages of a prediction, ms. On a GPU it uses events, read once at the end, so that no stage waits."""

    def __init__(self, device: torch.device) -> None:
        self._events = device.type == "cuda"
        self._marks: List[Tuple[str, Any]] = [("", self._mark())]

    def lap(self, name: str) -> None:
        """Ends a stage, which began when the stage before ended or when the clock was made."""
        self._marks.append((name, self._mark()))

    def per(self, count: int) -> Dict[str, float]:
        """Returns the stage times, ms, divided by the size of the batch."""
        if self._events:
            torch.cuda.synchronize()
        pairs = zip(self._marks, self._marks[1:])
        return {name: self._between(before, after) / count for (_, before), (name, after) in pairs}

    def _mark(self) -> Any:
        if not self._events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, before: Any, after: Any) -> float:
        return float(before.elapsed_time(after) if self._events else (after - before) * 1e3)
