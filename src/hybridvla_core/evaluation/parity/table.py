"""The comparisons: rows of quantity, largest absolute difference and tolerance."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Sequence, Set, Tuple

import numpy as np

from hybridvla_core.errors import HybridVLAError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: Suggested tolerances for float32 (README beside the fixtures).
EXACT, FINE, COARSE = 0.0, 1e-4, 1e-3


class Archive:
    """An `.npz` of expected values and inputs that records which arrays were read, so that nothing is left uncompared."""

    def __init__(self, path: Path) -> None:
        try:
            self._data = np.load(str(path))
        except Exception as error:  # numpy and zipfile raise many types for a damaged file
            raise HybridVLAError(f"{path}: cannot be read ({error}); parity needs the folder format of its README") from error
        self.path = path
        self.read: Set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._data.files

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._data.files:
            raise HybridVLAError(f"{self.path}: array {name!r} is missing")
        self.read.add(name)
        try:
            return self._data[name]
        except Exception as error:
            raise HybridVLAError(f"{self.path}: array {name!r} cannot be read ({error})") from error

    def peek(self, name: str) -> np.ndarray:
        """Returns an array without counting it as compared."""
        known = name in self.read
        array = self[name]
        if not known:
            self.read.discard(name)
        return array

    @property
    def names(self) -> List[str]:
        return list(self._data.files)

    def matching(self, pattern: str) -> List[Tuple[str, str]]:
        """Returns the names that match the whole pattern, each with the pattern's first group."""
        found = ((name, re.fullmatch(pattern, name)) for name in self._data.files)
        return [(name, match.group(1)) for name, match in found if match]

    def unread(self) -> List[str]:
        return sorted(set(self._data.files) - self.read)


@dataclass(frozen=True)
class Row:
    """One comparison. It passes if the difference is finite and does not exceed the tolerance.

    Attributes:
        quantity: What is compared.
        difference: Largest absolute difference.
        tolerance: Tolerance in the same unit.
    """

    quantity: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return bool(np.isfinite(self.difference) and self.difference <= self.tolerance)


class Table:
    """Collects rows; a quantity compared several times keeps its largest difference."""

    def __init__(self) -> None:
        self.rows: Dict[str, Row] = {}
        self.uncompared: List[str] = []
        #: Notes for people and reports for machines; neither decides whether the table passes.
        self.notes: List[str] = []
        self.reports: Dict[str, Any] = {}

    def compare(self, quantity: str, actual: ArrayLike, expected: ArrayLike, tolerance: float) -> None:
        """Adds the largest absolute difference; it is infinite if the shapes differ or a value is NaN on one side only."""
        actual, expected = np.asarray(actual), np.asarray(expected)
        if actual.shape != expected.shape:
            difference = float("inf")
        elif actual.size == 0:
            difference = 0.0
        else:
            distance = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
            difference = float(distance.max()) if np.isfinite(distance).all() else float("inf")
        row, before = Row(quantity, difference, tolerance), self.rows.get(quantity)
        if before is None or (not row.passed, difference) > (not before.passed, before.difference):
            self.rows[quantity] = row

    def compare_listed(self, archive: Archive, listed: Mapping[str, Any]) -> None:
        """Checks that the archive holds exactly the arrays that its description lists, each of the listed shape and type."""
        for name in sorted(set(listed) ^ set(archive.names)):
            self.uncompared.append(f"{archive.path.name}: {name} is only in the "
                                   f"{'description' if name in listed else 'archive'}")
        for name in set(listed) & set(archive.names):
            shape, dtype = listed[name][0], listed[name][1]
            array = archive.peek(name)
            if list(array.shape) != list(shape) or str(array.dtype) != str(dtype):
                self.uncompared.append(f"{archive.path.name}: {name} is {array.dtype} {array.shape}, described as {dtype} "
                                       f"{tuple(shape)}")

    def leave(self, archive: Archive, informational: Sequence[str] = ()) -> None:
        """Notes the arrays of the archive that were not compared; names that match `informational` are excused."""
        self.uncompared += [f"{archive.path.name}: {name}" for name in archive.unread()
                            if not any(re.fullmatch(pattern, name) for pattern in informational)]

    @property
    def passed(self) -> bool:
        return bool(self.rows) and not self.uncompared and all(row.passed for row in self.rows.values())

    def text(self) -> str:
        width = max(len(name) for name in self.rows) if self.rows else 10
        lines = [f"{'quantity':<{width}}  {'largest difference':>18}  {'tolerance':>9}"]
        for row in self.rows.values():
            tolerance = "exact" if row.tolerance == 0 else f"{row.tolerance:.0e}"
            lines.append(f"{row.quantity:<{width}}  {row.difference:18.2e}  {tolerance:>9}"
                         f"{'' if row.passed else '  FAILED'}")
        lines += self.notes
        lines += [f"not compared: {name}" for name in self.uncompared]
        return "\n".join(lines)
