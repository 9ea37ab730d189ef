"""Progress of a run: a line of JSON for machines, a bar for people, TensorBoard for those who have it."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping

from tqdm import tqdm

from hybridvla_core.errors import ConfigurationError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG = "log.jsonl"
#: How to install what training needs beyond the plain recipe. On Debian 12 `make setup` has done it.
INSTALL = ".venv/bin/pip install --no-deps -r requirements/noetic/train.txt (on Debian 12: requirements/debian12/train.txt)"


class RunLog:
    """Writer of `log.jsonl` and, on request, of TensorBoard's files beside it.

    Rows after the step from which a run resumes are dropped, so that the log is that of one run.
    """

    def __init__(self, folder: Path, total: int, tensorboard: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LOG
        self._writer = _tensorboard(folder, total) if tensorboard else None
        kept = [line for line in _lines(self.path) if json.loads(line)["total"] <= total]
        partial = self.path.with_name(f".{LOG}.part")
        partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(partial, self.path)

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes one line; `row` needs `total`, the steps done in all."""
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        if self._writer is not None:
            kind = row.get("kind", "train")
            for key, value in row.items():
                if isinstance(value, (int, float)) and key not in ("total", "step"):
                    self._writer.add_scalar(f"{kind}/{key}", value, row["total"])
            self._writer.flush()


class Bar:
    """Progress bar in samples: it shows samples per second and the time left."""

    def __init__(self, name: str, samples: int, done: int, visible: bool) -> None:
        self._bar = tqdm(total=samples, initial=done, desc=name, unit=" samples", unit_scale=True, mininterval=2.0,
                         disable=None if visible else True)

    def add(self, samples: int, terms: Mapping[str, float]) -> None:
        """Adds samples done, and shows the terms of the loss."""
        self._bar.set_postfix({key: f"{value:.3f}" for key, value in terms.items()}, refresh=False)
        self._bar.update(samples)

    def close(self) -> None:
        self._bar.close()


def _lines(path: Path) -> List[str]:
    """Returns the whole lines of a log, without one that a dying process cut off."""
    if not path.exists():
        return []
    whole = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row: Dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "total" in row:
            whole.append(line)
    return whole


def _tensorboard(folder: Path, total: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigurationError(f"--tensorboard needs the package tensorboard ({error}); {INSTALL}; or leave it out: "
                                 f"{LOG} is always written") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=total + 1)  # type: ignore[no-untyped-call,unused-ignore]
