"""What the robot did next: the recorded target that a prediction is compared with, and the phase of the task."""
from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from typing import List, Optional, Sequence, Tuple

from hybridvla_core.contracts import Pose
from hybridvla_core.evaluation.replay.settings import MotionConfig
from hybridvla_core.evaluation.replay.track import Track
from hybridvla_core.geometry.poses import angle, distance
from hybridvla_core.moved import old_names
from hybridvla_core.transforms.conventions import ActionConvention

GRIP_WAIT_S = 1.0                    # a gripper that changes so long after an arrival belongs to it
REST_AT_S = 0.2                      # so long after a rest has begun an impedance arm has settled
PHASES = ("approach", "grasp", "carry", "release")


@dataclass(frozen=True)
class ArmTruth:
    """One arm's recorded target.

    Attributes:
        pose: In its base frame.
        closed: Its gripper was closed then.
    """

    pose: Pose
    closed: bool


@dataclass(frozen=True)
class Truth:
    """What the recording did next.

    Attributes:
        at: Recorded time of the target, s.
        arms: One for each arm.
        phase: Of the first arm that does something.
    """

    at: float
    arms: Tuple[ArmTruth, ...]
    phase: str


@dataclass
class RecordedMotion:
    """What the arms did in a recording, and what was asked for.

    Attributes:
        tracks: Of the arms, in the convention's order.
        instructions: As (since s, text).
        engaged: [begin, end] s of each span in which the robot followed its instruction; None: throughout.
        sent: Where the arms were sent, like `tracks`. Keyframes are found in it and have its poses, because a compliant arm
            swings about that pose and rests beside it. None: only the measured motion is known.
        until: s at which what counts of it ends: an episode of several in one bag. What comes later is no target.
    """

    tracks: List[Track]
    instructions: List[Tuple[float, str]] = field(default_factory=list)
    engaged: Optional[List[Tuple[float, float]]] = None
    sent: Optional[List[Track]] = None
    until: float = math.inf

    def instruction(self, stamp: float) -> str:
        found = bisect.bisect_right([since for since, _ in self.instructions], stamp) - 1
        return self.instructions[found][1] if found >= 0 else ""

    def span(self, stamp: float) -> Optional[Tuple[float, float]]:
        """The engaged span around `stamp`, cut where the instruction or what counts ends; None while nobody followed one."""
        begin, end = -math.inf, self.until
        if self.engaged is not None:
            around = next(((a, b) for a, b in self.engaged if a <= stamp <= b), None)
            if around is None:
                return None
            begin, end = around[0], min(around[1], end)
        for since, _ in self.instructions:
            if since <= stamp:
                begin = max(begin, since)
            else:
                end = min(end, since)
        return begin, end


class TruthFinder:
    """For observation stamps of one recording. Raises nothing: what cannot be compared comes with a reason."""

    def __init__(self, recording: RecordedMotion, convention: ActionConvention, settings: MotionConfig) -> None:
        self._recording, self._tracks, self._settings = recording, recording.tracks, settings
        self._period = convention.action_period_s
        self._aims = recording.sent if recording.sent and self._period == 0.0 else recording.tracks
        self._rests = _common(self._aims)
        # What is sent arrives before the arm does: a rest that has begun is still ahead of it.
        self._reached = [end if self._aims is recording.sent else begin for begin, end in self._rests]

    def find(self, stamp: float) -> Tuple[Optional[Truth], str]:
        """The target after `stamp`, s, or None and why there is none."""
        span = self._recording.span(stamp)
        if span is None:
            return None, "the robot did not follow the policy's instruction"
        if any(track.gripping(stamp) for track in self._tracks):
            return None, "a gripper is on its way"
        at = stamp + self._period if self._period > 0.0 else self._keyframe(stamp)
        if at is None:
            return None, "the robot did nothing more"
        if at > span[1]:
            return None, "the instruction or the robot's task ended before the target was reached"
        if at - stamp > self._settings.horizon_s:
            return None, "the next recorded target is too far ahead"
        arms = []
        for track, aim in zip(self._tracks, self._aims):
            pose = aim.pose(at)
            if pose is None:
                return None, "the recording ends before the target"
            arms.append(ArmTruth(pose, track.closed(self._grip_end(track, at))))
        return Truth(at, tuple(arms), self._phase(stamp, arms)), ""

    def _keyframe(self, stamp: float) -> Optional[float]:
        """Finds when the next keyframe was reached: the end of a motion, or the change of a gripper.

        A keyframe that the arm has practically reached is over, unless its gripper has not moved yet.

        Args:
            stamp: From when on, s.

        Returns:
            The time, s; None where none follows.
        """
        grip = min((grip[0] for track in self._tracks for grip in track.grips if grip[0] >= stamp), default=math.inf)
        if grip - stamp <= GRIP_WAIT_S and not self._moved(stamp, grip):
            return grip
        for index in range(bisect.bisect_right(self._reached, stamp), len(self._rests)):
            begin, end = self._rests[index]
            if grip < begin:
                return grip
            if self._gripped(begin, stamp):
                continue
            # Who labels an episode while the arm settles has seen it come to rest.
            at = max(stamp, min(end, begin + REST_AT_S, max(begin, self._recording.until)))
            if self._moved(stamp, at):
                return at
        return grip if math.isfinite(grip) else None

    def _gripped(self, begin: float, stamp: float) -> bool:
        """Whether a gripper has done its work since `begin`, s: then this rest is over, however far the arm is from it."""
        return any(begin <= grip[0] and grip[1] <= stamp for track in self._tracks for grip in track.grips)

    def _moved(self, first: float, second: float, since: Optional[Sequence[Track]] = None) -> bool:
        """Compares an earlier place with a later aim.

        Args:
            first: Time of the place, s.
            second: Time of the aim, s.
            since: Tracks of the place; None: the measured ones.

        Returns:
            Whether an arm's aim lies far from its place.
        """
        for track, aim in zip(since or self._tracks, self._aims):
            one, two = track.pose(first), aim.pose(second)
            if one is None or two is None:
                continue
            if distance(one, two) > self._settings.near_m or angle(one, two) > self._settings.near_rad:
                return True
        return False

    def _grip_end(self, track: Track, at: float) -> float:
        """The time whose gripper state belongs to a target reached at `at`: a keyframe's gripper moves after arrival."""
        if self._period > 0.0:
            return at
        after = [grip[0] for grip in track.grips
                 if at - REST_AT_S <= grip[0] <= min(at + GRIP_WAIT_S, self._recording.until)
                 and not self._moved(at, grip[0], self._aims)]
        return max([at, *after])

    def _phase(self, stamp: float, arms: Sequence[ArmTruth]) -> str:
        names = []
        for track, arm in zip(self._tracks, arms):
            before = track.closed(stamp)
            names.append(("carry" if before else "approach") if before == arm.closed else
                         ("grasp" if arm.closed else "release"))
        return next((name for name in ("grasp", "release", "carry") if name in names), "approach")


def _common(tracks: Sequence[Track]) -> List[Tuple[float, float]]:
    """Spans in which every arm rests."""
    spans = tracks[0].rests if tracks else []
    for track in tracks[1:]:
        spans = [(max(a, c), min(b, d)) for a, b in spans for c, d in track.rests if max(a, c) < min(b, d)]
    return spans


__getattr__ = old_names(__name__)
