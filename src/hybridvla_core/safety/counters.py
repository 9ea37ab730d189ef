"""Named counts since start."""
from __future__ import annotations

from typing import Dict


class Counters:
    """Named counts since start."""

    def __init__(self) -> None:
        self._values: Dict[str, int] = dict.fromkeys((
            "accepted", "holds", "stops", "reseeds", "reposes", "overruns", "target_violations", "measured_violations"), 0)

    def add(self, name: str, amount: int = 1) -> None:
        self._values[name] = self._values.get(name, 0) + amount

    def of(self, name: str) -> int:
        return self._values.get(name, 0)

    def snapshot(self) -> Dict[str, int]:
        return dict(self._values)
