"""What the robot did next: the recorded target with which a prediction is compared, and the phase of the task."""
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

GRIP_WAIT_S = 1.0                    # a gripper change within this time of an arrival belongs to it
REST_AT_S = 0.2                      # an impedance-controlled arm has settled this long after a rest has begun
PHASES = ("approach", "grasp", "carry", "release")


@dataclass(frozen=True)
class ArmTruth:
    """One arm's recorded target.

    Attributes:
        pose: Target pose in the arm's base frame.
        closed: Whether the gripper was closed then.
    """

    pose: Pose
    closed: bool


@dataclass(frozen=True)
class Truth:
    """What the robot did next in the recording.

    Attributes:
        at: Recorded time of the target, s.
        arms: Targets, one for each arm.
        phase: Phase of the first arm that does something.
    """

    at: float
    arms: Tuple[ArmTruth, ...]
    phase: str


@dataclass
class RecordedMotion:
    """What the arms did in a recording, and under which instructions.

    Attributes:
        tracks: Tracks of the arms, in the convention's order.
        instructions: Instructions as (since s, text).
        engaged: [begin, end] s of each span in which the robot followed its instruction; None: throughout.
        sent: Where the arms were sent, like `tracks`. Keyframes are found in it and take its poses, because a compliant arm
            swings about the commanded pose and rests beside it. None: only the measured motion is known.
        until: Time, s, at which the relevant part ends, such as one of several episodes in a bag. What comes later is no target.
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
        """Returns the engaged span around `stamp`, cut where the instruction or the relevant part ends; None if not engaged."""
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
    """Finds targets for the observation stamps of one recording. Raises nothing: a missing target comes with a reason."""

    def __init__(self, recording: RecordedMotion, convention: ActionConvention, settings: MotionConfig) -> None:
        self._recording, self._tracks, self._settings = recording, recording.tracks, settings
        self._period = convention.action_period_s
        self._aims = recording.sent if recording.sent and self._period == 0.0 else recording.tracks
        self._rests = _common(self._aims)
        # Commands arrive before the arm does: a rest that has begun in them is still ahead of the arm.
        self._reached = [end if self._aims is recording.sent else begin for begin, end in self._rests]

    def find(self, stamp: float) -> Tuple[Optional[Truth], str]:
        """Returns the target after `stamp`, s, or None and why there is none."""
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

        A keyframe that the arm has practically reached counts as past, unless its gripper has not moved yet.

        Args:
            stamp: Time from which to search, s.

        Returns:
            The time, s; None if no keyframe follows.
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
            # An operator who labels an episode while the arm settles has seen it come to rest.
            at = max(stamp, min(end, begin + REST_AT_S, max(begin, self._recording.until)))
            if self._moved(stamp, at):
                return at
        return grip if math.isfinite(grip) else None

    def _gripped(self, begin: float, stamp: float) -> bool:
        """Tells whether a gripper has finished since `begin`, s: then this rest is past, however far the arm is from it."""
        return any(begin <= grip[0] and grip[1] <= stamp for track in self._tracks for grip in track.grips)

    def _moved(self, first: float, second: float, since: Optional[Sequence[Track]] = None) -> bool:
        """Tells whether the aim at a later time is far from the place at an earlier one.

        Args:
            first: Time of the place, s.
            second: Time of the aim, s.
            since: Tracks that give the place; None: the measured ones.

        Returns:
            Whether an arm's aim is far from its place.
        """
        for track, aim in zip(since or self._tracks, self._aims):
            one, two = track.pose(first), aim.pose(second)
            if one is None or two is None:
                continue
            if distance(one, two) > self._settings.near_m or angle(one, two) > self._settings.near_rad:
                return True
        return False

    def _grip_end(self, track: Track, at: float) -> float:
        """Returns the time whose gripper state belongs to a target reached at `at`: a keyframe's gripper moves after arrival."""
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
    """Returns the spans in which every arm rests."""
    spans = tracks[0].rests if tracks else []
    for track in tracks[1:]:
        spans = [(max(a, c), min(b, d)) for a, b in spans for c, d in track.rests if max(a, c) < min(b, d)]
    return spans


__getattr__ = old_names(__name__)
