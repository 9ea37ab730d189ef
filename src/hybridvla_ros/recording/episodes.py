"""Episodes and their labels: start, then success, failure or discard; kept as JSON lines. No ROS.

Each event is one line, appended and forced to the disk before the answer, so that a crash or a power cut loses no label.
"""
from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import append_line
from hybridvla_ros.recording.locks import Busy, OnlyUser

START, SUCCESS, FAILURE, DISCARD, ABORTED = EVENTS = ("start", "success", "failure", "discard", "aborted")
LABELS = (SUCCESS, FAILURE, DISCARD)


class EpisodeError(HybridVLAError):
    """A label that does not fit the state, or that cannot be kept."""


@dataclass(frozen=True)
class EpisodeEvent:
    """What happened to an episode.

    Attributes:
        number: Episode number, from 1, increasing over restarts.
        id: Unique id of the episode.
        event: start, success, failure, discard or aborted.
        stamp: Time of the event on the caller's clock, s.
        elapsed_s: Time since the start, s.
        instructions: Instructions of the episode.
        note: Any further text.
    """

    number: int
    id: str
    event: str
    stamp: float
    elapsed_s: float
    instructions: Tuple[str, ...]
    note: str = ""

    def line(self) -> str:
        wall = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        return json.dumps({"number": self.number, "id": self.id, "event": self.event, "stamp": round(self.stamp, 6),
                           "wall": wall, "elapsed_s": round(self.elapsed_s, 3), "instructions": list(self.instructions),
                           "note": self.note})


class EpisodeLog:
    """The running episode and the file of all episodes. One caller at a time, and one log per file: a second one is refused.

    An episode that the last run left open is closed as `aborted` at once; `recovered` is that event, or None.
    """

    def __init__(self, path: Path, now: float) -> None:
        self._path = path
        self.current: Optional[EpisodeEvent] = None
        self.instruction = ""
        self.counts: Dict[str, int] = dict.fromkeys(EVENTS, 0)
        self.recovered: Optional[EpisodeEvent] = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._alone = OnlyUser(path)
            last = self._read()
        except Busy as error:
            raise EpisodeError(f"{path}: labels are kept there by {error}; stop that episode_node, or name another file "
                               "(labels:=)") from error
        except OSError as error:
            raise EpisodeError(f"{path}: cannot be used ({error.strerror}); check the folder and its permissions") from error
        self._number = int(last["number"]) if last else 0
        if last and last["event"] == START:
            self.recovered = EpisodeEvent(self._number, last["id"], ABORTED, now, max(0.0, now - float(last["stamp"])),
                                          tuple(last["instructions"]), "the node ended while the episode ran")
            self._write(self.recovered)

    def close(self) -> None:
        """Lets another log use the file."""
        self._alone.release()

    def start(self, now: float) -> EpisodeEvent:
        """Begins the next episode. Raises EpisodeError while one runs."""
        if self.current is not None:
            raise EpisodeError(f"episode {self.current.number} is running; call success, failure or discard first")
        stamp = datetime.fromtimestamp(now, timezone.utc).strftime("%Y%m%dT%H%M%S")
        event = EpisodeEvent(self._number + 1, f"{stamp}-{self._number + 1:05d}", START, now, 0.0,
                             (self.instruction,) if self.instruction else ())
        self._write(event)
        self._number, self.current = event.number, event
        return event

    def label(self, label: str, now: float, note: str = "") -> EpisodeEvent:
        """Ends the running episode. Raises EpisodeError when none runs or the label cannot be kept; the episode then runs on."""
        if self.current is None:
            raise EpisodeError(f"no episode is running, so nothing can be called a {label}; call start first")
        if label not in LABELS:
            raise EpisodeError(f"{label!r} is not a label; use one of {', '.join(LABELS)}")
        event = replace(self.current, event=label, elapsed_s=max(0.0, now - self.current.stamp), stamp=now, note=note)
        self._write(event)
        self.current = None
        return event

    def set_instruction(self, text: str) -> None:
        """Takes what the policy was told; kept with the episode when it changes."""
        self.instruction = text
        if self.current is not None and text and self.current.instructions[-1:] != (text,):
            self.current = replace(self.current, instructions=(*self.current.instructions, text))

    def _read(self) -> Optional[Dict[str, Any]]:
        """Returns the last readable line; skips a line that a power cut cut off."""
        if not self._path.exists():
            return None
        text = self._path.read_text(encoding="utf-8", errors="replace")
        last: Optional[Dict[str, Any]] = None
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and {"number", "id", "event", "stamp", "instructions"} <= set(entry):
                last = entry
        return last

    def _write(self, event: EpisodeEvent) -> None:
        try:
            append_line(self._path, event.line())
        except OSError as error:
            raise EpisodeError(f"the label cannot be written to {self._path} ({error.strerror}); free space there and "
                               "call again") from error
        self.counts[event.event] += 1


def read_events(path: Path) -> List[Dict[str, Any]]:
    """Returns all readable lines of a label file, for tools."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
