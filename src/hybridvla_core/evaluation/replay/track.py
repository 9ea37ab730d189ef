"""One arm's recorded motion: poses, joints and gripper over time, when it rested, and when the gripper changed."""
from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import List, Optional, Tuple

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from hybridvla_core.contracts import Pose
from hybridvla_core.evaluation.replay.settings import MotionConfig

SMOOTH_S = 0.04      # speeds are computed over twice this time
SETTLED = 0.004      # a gripper whose opening changes by less than this share in SETTLED_S has arrived
SETTLED_S = 0.1
STEP_BACK_S = 1e-6


@dataclass
class Track:
    """Readings in the order of their stamps; a reading that goes back in time is dropped and counted.

    Attributes:
        name: Name of the arm.
        dof: Number of its joints.
        times: (N,) stamps, s; set by `finish`, like all that follow.
        positions: (N, 3) positions, m.
        quaternions: (N, 4) orientations, xyzw.
        openings: (N,) gripper openings in [0, 1] or NaN.
        joints: (N, dof) joints, rad.
        rests: [begin, end] of each rest, s.
        grips: (begin, end, closed after) of each change of the gripper.
        dropped: Number of readings that went back in time.
    """

    name: str
    dof: int
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    positions: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    quaternions: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    openings: np.ndarray = field(default_factory=lambda: np.zeros(0))
    joints: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    rests: List[Tuple[float, float]] = field(default_factory=list)
    grips: List[Tuple[float, float, bool]] = field(default_factory=list)
    dropped: int = 0

    def __post_init__(self) -> None:
        self._raw = array("d")
        self._last = -np.inf
        self._closed_at_first = False

    def add(self, stamp: float, pose: Pose, opening: float, joints: np.ndarray) -> None:
        """Adds a reading. joints: (dof,) rad; NaN where unknown."""
        if stamp <= self._last + STEP_BACK_S:
            self.dropped += 1
            return
        self._last = stamp
        self._raw.extend([stamp, *pose.position, *pose.quaternion, opening, *joints])

    def __len__(self) -> int:
        return len(self._raw) // (9 + self.dof) or len(self.times)

    def finish(self, settings: MotionConfig) -> None:
        """Turns the readings into arrays and finds rests and changes of the gripper."""
        table = np.frombuffer(self._raw, dtype=float).reshape(-1, 9 + self.dof)
        self.times, self.positions, self.quaternions = table[:, 0], table[:, 1:4], table[:, 4:8]
        self.openings, self.joints = table[:, 8], table[:, 9:]
        self.rests = self._find_rests(settings)
        self.grips = _find_grips(self.times, self.openings, settings.gripper_change)
        # The arm's first readings may have come before its gripper's.
        known = self.openings[np.isfinite(self.openings)]
        self._closed_at_first = bool(known.size and known[0] < 0.5)

    @property
    def gripper_known(self) -> bool:
        """Whether the gripper was read at all."""
        return bool(np.isfinite(self.openings).any())

    def grip_like(self, measured: Track) -> None:
        """Takes over the gripper's changes from another track: the recorded commands of an arm hold poses alone."""
        self.grips, self._closed_at_first = measured.grips, measured._closed_at_first

    def index(self, stamp: float) -> int:
        """Returns the index of the last reading at or before `stamp`; 0 before the first."""
        return max(int(np.searchsorted(self.times, stamp, side="right")) - 1, 0)

    def pose(self, stamp: float) -> Optional[Pose]:
        """Returns the interpolated pose; None outside the recording."""
        if not len(self.times) or not self.times[0] <= stamp <= self.times[-1]:
            return None
        before = min(self.index(stamp), len(self.times) - 2) if len(self.times) > 1 else 0
        if len(self.times) == 1:
            return Pose(self.positions[0], self.quaternions[0])
        share = (stamp - self.times[before]) / (self.times[before + 1] - self.times[before])
        position = (1.0 - share) * self.positions[before] + share * self.positions[before + 1]
        turn = Slerp([0.0, 1.0], Rotation.from_quat(self.quaternions[before:before + 2]))(share)
        return Pose(position, turn.as_quat())

    def closed(self, stamp: float) -> bool:
        """Tells whether the gripper is closed, or closing, at `stamp`."""
        state = self._closed_at_first
        for begin, _, closed in self.grips:
            if begin > stamp:
                break
            state = closed
        return state

    def gripping(self, stamp: float) -> bool:
        """Tells whether the gripper is moving at `stamp`."""
        return any(begin < stamp < end for begin, end, _ in self.grips)

    def rest(self, stamp: float) -> Optional[Tuple[float, float]]:
        """Returns the rest that contains `stamp`."""
        for begin, end in self.rests:
            if begin <= stamp <= end:
                return begin, end
            if begin > stamp:
                break
        return None

    def _find_rests(self, settings: MotionConfig) -> List[Tuple[float, float]]:
        times = self.times
        if len(times) < 3:
            return [(float(times[0]), float(times[-1]))] if len(times) else []
        last = len(times) - 1
        before = np.clip(np.searchsorted(times, times - SMOOTH_S), 0, last)
        after = np.clip(np.searchsorted(times, times + SMOOTH_S), 0, last)
        span = np.maximum(times[after] - times[before], 1e-6)
        speed = np.linalg.norm(self.positions[after] - self.positions[before], axis=1) / span
        dot = np.abs(np.sum(self.quaternions[after] * self.quaternions[before], axis=1))
        turn = 2.0 * np.arccos(np.clip(dot, -1.0, 1.0)) / span
        still = (speed < settings.rest_speed_m_s) & (turn < settings.rest_speed_rad_s)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], still, [False]]).astype(int)))
        spans = [(float(times[a]), float(times[min(b, last)])) for a, b in zip(edges[::2], edges[1::2])]
        return [(a, b) for a, b in spans if b - a >= settings.rest_s]


def _find_grips(times: np.ndarray, openings: np.ndarray, change: float) -> List[Tuple[float, float, bool]]:
    """Finds each change by more than `change` from the widest or narrowest opening since the last one.

    Returns:
        (begin, end, closed after) of each change; the gripper was moving between begin and end, s.
    """
    grips: List[Tuple[float, float, bool]] = []
    known = np.flatnonzero(np.isfinite(openings))
    if not known.size:
        return grips
    times, openings = times[known], openings[known]
    edge = openings[0]
    closed = bool(edge < 0.5)
    for index, opening in enumerate(openings):
        edge = min(edge, opening) if closed else max(edge, opening)
        if abs(opening - edge) > change:
            closed = not closed
            grips.append((_set_out(times, openings, index), _settled(times, openings, index), closed))
            edge = opening
    return grips


def _set_out(times: np.ndarray, openings: np.ndarray, index: int) -> float:
    """Returns when the change in progress at `index` began."""
    while index > 0:
        earlier = int(np.searchsorted(times, times[index] - SETTLED_S / 2.0))
        if earlier == index or abs(openings[index] - openings[earlier]) < SETTLED:
            break
        index -= 1
    return float(times[index])


def _settled(times: np.ndarray, openings: np.ndarray, index: int) -> float:
    """Returns when the change in progress at `index` ends."""
    while index + 1 < len(times):
        later = min(int(np.searchsorted(times, times[index] + SETTLED_S)), len(times) - 1)
        if later == index or abs(openings[later] - openings[index]) < SETTLED:
            break
        index += 1
    return float(times[index])
