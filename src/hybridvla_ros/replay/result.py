"""What one run of `hybridvla replay` produces, and how its parts become plain data."""
from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Deque, Dict, List, Optional, Tuple

import numpy as np

from hybridvla_core.evaluation.replay import sensitivity
from hybridvla_core.evaluation.replay import summary as summary_of
from hybridvla_core.evaluation.replay.evaluator import Evaluator
from hybridvla_core.evaluation.replay.report.filmstrip import Projection
from hybridvla_core.evaluation.replay.rows import Frame
from hybridvla_core.evaluation.replay.verdict import Check
from hybridvla_core.policy.interface import BatchPolicy
from hybridvla_core.report.statistics import quantiles
from hybridvla_ros.replay.frames import Misses, Observing
from hybridvla_ros.replay.scan import Scanned


@dataclass
class Contender:
    """One checkpoint's share of a run.

    Attributes:
        folder: Folder of the checkpoint.
        policy: The policy that predicts.
        evaluator: Compares its predictions.
        senses: Whether the policy looks and listens; None where that was not asked.
    """

    folder: str
    policy: BatchPolicy
    evaluator: Evaluator
    senses: Optional[sensitivity.SensitivityResult] = None


@dataclass
class Result:
    """What a run found.

    Attributes:
        summary: Summary for machines.
        checks: Checks of the judged checkpoint.
        unread: One sentence for each bag left out.
        notes: What a reader should know.
        contenders: The judged checkpoint, then the other.
        scanned: The recordings.
    """

    summary: Dict[str, Any]
    checks: List[Check]
    unread: List[str]
    notes: List[str]
    contenders: List[Contender]
    scanned: List[Scanned]

    def rows_as_lines(self) -> str:
        return "".join(json.dumps(entry) + "\n" for entry in summary_of.series(self.contenders[0].evaluator.rows))

    def page(self) -> Dict[str, Any]:
        """Returns the data that the report page draws from."""
        return {"summary": self.summary, "checks": self.checks, "unread": self.unread, "notes": self.notes,
                "contenders": [(contender.folder, contender.evaluator) for contender in self.contenders],
                "recordings": [{"name": scanned.name, "duration": scanned.duration, "tracks": scanned.recording.tracks,
                                "projections": projections(scanned)} for scanned in self.scanned]}


@dataclass
class Sample:
    """A few frames spread evenly over the time in which the robots followed their instructions.

    Attributes:
        scanned: The recordings.
        count: Number of frames wanted.
        frames: Frames that were found.
    """

    scanned: List[Scanned]
    count: int
    frames: List[Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        spans: List[Tuple[int, float, float]] = []
        for number, found in enumerate(self.scanned):
            for begin, end in found.recording.engaged or [(found.begin, found.begin + found.duration)]:
                spans.append((number, begin - found.begin, end - found.begin))
        total = sum(end - begin for _, begin, end in spans)
        self._wanted: Deque[Tuple[int, float]] = deque()
        for k in range(self.count):
            left = total * (k + 0.5) / self.count
            for number, begin, end in spans:
                if left <= end - begin:
                    self._wanted.append((number, begin + left))
                    break
                left -= end - begin

    def offer(self, number: int, frame: Frame) -> None:
        passed = False
        while self._wanted and self._wanted[0] <= (number, frame.time):
            self._wanted.popleft()
            passed = True
        if passed:
            self.frames.append(frame)


def observing_data(observing: Observing) -> Dict[str, Any]:
    spreads = observing.spreads
    decisions = observing.decisions
    return {"due": observing.due, "missed": observing.missed, "problems": problems(observing), "decisions": decisions.due,
            "unmatched_proposals": decisions.missed, "unmatched_problems": problems(decisions),
            "spread_p99_s": quantiles(spreads, {"p99": 99.0}, 5)["p99"] if spreads else None}


def problems(misses: Misses) -> Dict[str, int]:
    """Returns the sentences, each with its first time, and how often each came, the most frequent first."""
    return {f"{text} (first at {misses.first[text]:.2f} s)": count for text, count in misses.problems.most_common()}


def projections(found: Scanned) -> Dict[str, Projection]:
    result = {}
    for view, pose in found.topics.camera_poses.items():
        intrinsics = found.infos.get(view)
        if intrinsics is None and pose.fx_px and pose.width_px:
            fy = pose.fy_px or pose.fx_px
            cx = pose.width_px / 2.0 if pose.cx_px is None else pose.cx_px
            intrinsics = (pose.fx_px, fy, cx, cx if pose.cy_px is None else pose.cy_px, float(pose.width_px))
        if intrinsics is not None and not math.isclose(intrinsics[0], 0.0):
            result[view] = Projection(np.array(pose.position_m), np.array(pose.quaternion_xyzw), intrinsics)
    return result
