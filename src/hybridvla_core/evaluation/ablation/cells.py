"""Cells of episodes to run. Each is saved to its own file as soon as it is done, so a killed sweep can resume."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.ablation.variant import Variant
from hybridvla_core.files import key_of, write_json

#: Version of the results; changed whenever older results may no longer be used.
FORMAT = 5
#: Prefixes of the address of a remote policy.
REMOTE = ("ws://", "wss://")


@dataclass(frozen=True)
class Cell:
    """Episodes of one task with one checkpoint, queried in one way. The result depends on nothing else.

    Attributes:
        checkpoint: Folder of the checkpoint, or address of a remote policy.
        manifest: sha256 of the checkpoint's manifest: another checkpoint in the same folder is another cell. Empty for a remote
            policy that has none.
        variant: How the checkpoint is queried.
        task: Name of the task.
        seed: Episode i draws everything from seed + i.
        episodes: Number of episodes.
        switched: Whether the instruction changes in mid-episode.
        filtered: False sends every target to the arm as it is, without the safety filter.
        variation: How the scenes differ from those of the demonstrations; empty: not at all.
        policy_config: Digest of the policy's configuration.
        robot_config: Digest of the robot's configuration.
        origin: Digest of the code, simulator and renderer that produce its episodes.
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
        """Address of a remote policy; empty for a folder."""
        return self.checkpoint if self.checkpoint.startswith(REMOTE) else ""

    @property
    def key(self) -> str:
        """Name of the result's file. A checkpoint folder is identified by its content and not by its path, a remote policy by its
        address."""
        return key_of({**asdict(self), "checkpoint": self.place, "format": FORMAT})


@dataclass(frozen=True)
class Outcome:
    """Result of a cell. It holds no figures that depend on the computer's speed.

    Attributes:
        success: Whether each episode succeeded, in the order of the seeds.
        violations: Limit violations that the rig counted, by episode.
        interventions: Interventions of the filter by name, over all episodes.
        failures: Class of each failed episode by its seed (see `failures.py`).
        fused: Share of predictions whose paths were averaged.
        predictions: Number of predictions by episode.
        confidence: Mean confidence of each prediction over its tokens; None where no token was decoded.
        errors_mm: Distance of each predicted target from the expert's, mm.
        correlation: Correlation of both paths' errors; None where only one path answered.
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
    """Results in a folder, one file per cell.

    Args:
        folder: Folder of the results; created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, cell: Cell) -> Optional[Outcome]:
        """Returns the result of a cell that has already run, or None.

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
        """Removes the results of cells that have already run, and returns how many it removed."""
        paths = {self._path(cell) for cell in cells}
        found = [path for path in paths if path.is_file()]
        for path in found:
            path.unlink()
        return len(found)

    def missing(self, cells: List[Cell]) -> List[Cell]:
        """Returns the cells that have not run yet, each once."""
        open_cells: Dict[str, Cell] = {cell.key: cell for cell in cells}
        return [cell for cell in open_cells.values() if self.find(cell) is None]

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.key}.json"
