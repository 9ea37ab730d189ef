"""What is run: cells of episodes, each kept in a file of its own as soon as it is done, so that a killed sweep goes on."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.ablation.variant import Variant
from hybridvla_core.files import key_of, write_json

#: Changes whenever an older result is not to be taken for one of today.
FORMAT = 5
#: How the address of a policy elsewhere begins.
REMOTE = ("ws://", "wss://")


@dataclass(frozen=True)
class Cell:
    """Episodes of one task by one checkpoint, asked in one way. Its result depends on nothing else.

    Attributes:
        checkpoint: The folder, or the address of a policy elsewhere.
        manifest: sha256 of the checkpoint's manifest: another checkpoint in the same folder is another cell. Empty for a policy
            elsewhere that has none.
        variant: How it is asked.
        task: Name of the task.
        seed: Episode i draws everything from seed + i.
        episodes: How many.
        switched: The instruction changes in mid-episode.
        filtered: False sends every target to the arm as it is, without the safety filter.
        variation: How the scenes deviate from those of every demonstration; empty: not at all.
        policy_config: Digest of the policy's configuration.
        robot_config: Digest of the robot's.
        origin: Digest of the code, simulator and renderer that its episodes come from.
    """

    checkpoint: str
    manifest: str
    variant: Variant
    task: str
    seed: int
    episodes: int
    switched: bool = False
    filtered: bool = True
    variation: str = ""
    policy_config: str = ""
    robot_config: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise HybridVLAError(f"a cell has {self.episodes} episodes; give at least 1")

    @property
    def place(self) -> str:
        """Address of a policy elsewhere; empty for a folder."""
        return self.checkpoint if self.checkpoint.startswith(REMOTE) else ""

    @property
    def key(self) -> str:
        """Names the result's file. A checkpoint folder counts by its content and not by its path, a policy elsewhere by its
        address."""
        return key_of({**asdict(self), "checkpoint": self.place, "format": FORMAT})


@dataclass(frozen=True)
class Outcome:
    """What a cell gave. Figures that depend on the computer's speed are no part of it.

    Attributes:
        success: By episode, in the order of the seeds.
        violations: Limit violations that the rig counted, by episode.
        interventions: The filter's, by name, over all episodes.
        failures: Class of each failed episode, by its seed (see `failures.py`).
        fused: Share of predictions whose paths were averaged.
        predictions: How many, by episode.
        confidence: Of each prediction, the mean over its tokens; None where no token was decoded.
        errors_mm: Distance of each prediction from the expert's, mm.
        correlation: Of both paths' errors; None where only one path answered.
    """

    success: Tuple[bool, ...]
    violations: Tuple[int, ...]
    interventions: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    fused: float = 0.0
    predictions: Tuple[int, ...] = ()
    confidence: Tuple[Optional[float], ...] = ()
    errors_mm: Tuple[float, ...] = ()
    correlation: Optional[float] = None

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Outcome:
        lists = {name: tuple(content[name]) for name in ("success", "violations", "predictions", "confidence",
                                                                 "errors_mm")}
        return cls(**{**content, **lists})


class CellStore:
    """Results in a folder, one file a cell.

    Args:
        folder: Made where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, cell: Cell) -> Optional[Outcome]:
        """Returns the result of a cell that was run before, or None.

        Raises:
            HybridVLAError: The file is damaged.
        """
        path = self._path(cell)
        if not path.is_file():
            return None
        try:
            return Outcome.read(json.loads(path.read_text(encoding="utf-8"))["outcome"])
        except (ValueError, KeyError, TypeError) as error:
            raise HybridVLAError(f"{path} is no result of a cell ({error}); delete it, and the cell is run again") from error

    def keep(self, cell: Cell, outcome: Outcome) -> None:
        write_json(self._path(cell), {"cell": asdict(cell), "outcome": asdict(outcome)})

    def forget(self, cells: Sequence[Cell]) -> int:
        """Removes the results of cells that were run before, and returns how many it removed."""
        paths = {self._path(cell) for cell in cells}
        found = [path for path in paths if path.is_file()]
        for path in found:
            path.unlink()
        return len(found)

    def missing(self, cells: List[Cell]) -> List[Cell]:
        """Returns the cells that are still to be run, each once."""
        open_cells: Dict[str, Cell] = {cell.key: cell for cell in cells}
        return [cell for cell in open_cells.values() if self.find(cell) is None]

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.key}.json"
