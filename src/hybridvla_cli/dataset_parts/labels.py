"""The label of each recorded moment: the next pose, or the next keyframe, in the policy's convention."""
from __future__ import annotations

import math
from typing import Optional, Tuple

import numpy as np

from hybridvla_core.data.lerobot.layout import NEXT_KEYFRAME, NEXT_POSE
from hybridvla_core.errors import DataError
from hybridvla_core.evaluation.replay.rows import Frame
from hybridvla_core.evaluation.replay.settings import MotionConfig
from hybridvla_core.evaluation.replay.truth import RecordedMotion, TruthFinder
from hybridvla_core.transforms.conventions import ActionConvention, target_to_action

LONGEST_GAP = 1.8       # most periods between two rows; more would turn two actions into one
LONGEST_MEAN = 1.1      # the same on average; with more, chunks would lack a part of the motion


class DenseLabels:
    """Labels one row per period, which leads to the pose one period later.

    Args:
        recording: What the arms did, or were commanded to do.
        convention: Convention of the policy, with an action period above 0.
    """

    kind = NEXT_POSE

    def __init__(self, recording: RecordedMotion, convention: ActionConvention) -> None:
        self._recording, self._tracks, self._convention = recording, recording.tracks, convention
        self._first, self._last, self._rows = math.inf, -math.inf, 0

    def of(self, frame: Frame) -> Optional[np.ndarray]:
        """Computes the action of a frame: the poses one action period after its images.

        Args:
            frame: Frame of the recording, in order of time.

        Returns:
            (A,) action in the convention's units; None at the end of the recording, or of its relevant part.

        Raises:
            DataError: Between this frame and the one before, images are missing or the filter followed nobody.
        """
        stamp, period = frame.inference.observation.stamp_ns * 1e-9, self._convention.action_period_s
        if math.isfinite(self._last) and stamp - self._last > LONGEST_GAP * period:
            followed = _unfollowed(self._recording, self._last, stamp) is None
            what = "no usable images" if followed else "the filter followed nobody for a while,"
            raise DataError(f"{what} from {frame.time - (stamp - self._last):.2f} s to {frame.time:.2f} s; an action takes "
                            f"{period:g} s, so its rows would not follow each other")
        self._first, self._last, self._rows = min(self._first, stamp), stamp, self._rows + 1
        if stamp + period > self._recording.until:
            return None
        return _action(self._convention, frame, [(track.pose(stamp + period), track.closed(stamp + period))
                                                 for track in self._tracks])

    def finish(self) -> None:
        """Ends the labels after the last row.

        Raises:
            DataError: The rows are further apart than an action takes.
        """
        period, steps = self._convention.action_period_s, max(self._rows - 1, 1)
        # Less one period: in a short episode both the first and the last row may be far from when they were due.
        if self._last - self._first - period > LONGEST_MEAN * period * steps:
            raise DataError(too_slow("its usable images", (self._last - self._first) / steps, period))


class KeyframeLabels:
    """Labels rows that lead to the next keyframe: where the arms come to rest or a gripper changes.

    Args:
        every: Whether every frame is a row; otherwise only the frames at which a keyframe has been reached are.
    """

    def __init__(self, recording: RecordedMotion, convention: ActionConvention, motion: MotionConfig, every: bool) -> None:
        self._finder, self._recording = TruthFinder(recording, convention, motion), recording
        self._convention, self._every, self._next, self._last = convention, every, -math.inf, math.inf
        self.kind = NEXT_KEYFRAME if every else NEXT_POSE

    def of(self, frame: Frame) -> Optional[np.ndarray]:
        """Computes the action of a frame: the poses of the next keyframe.

        Args:
            frame: Frame of the recording, in order of time.

        Returns:
            (A,) action in the convention's units; None if the frame leads nowhere, or is not a keyframe.

        Raises:
            DataError: Rows are keyframes, and between this one and the one before the filter followed nobody: the arm may have
                been moved meanwhile, so a chunk would lead to a pose that nobody sent.
        """
        stamp = frame.inference.observation.stamp_ns * 1e-9
        if not self._every and stamp < self._next:
            return None
        truth, _ = self._finder.find(stamp)
        if truth is None:
            return None
        gap = None if self._every else _unfollowed(self._recording, self._last, stamp)
        if gap is not None:
            begin, end = (frame.time - stamp + when for when in gap)
            raise DataError(f"the filter followed nobody for a while, from {begin:.1f} s to {end:.1f} s, so the keyframes on "
                            "both sides do not follow each other; without --keyframes every frame is a row of its own")
        self._next, self._last = truth.at, stamp
        return _action(self._convention, frame, [(arm.pose, arm.closed) for arm in truth.arms])

    def finish(self) -> None:
        """Does nothing: keyframes have no rate."""


def _unfollowed(recording: RecordedMotion, begin: float, end: float) -> Optional[Tuple[float, float]]:
    """Returns the first stretch (begin, end) between two times, s, in which the filter followed nobody; None if there is none."""
    spans = recording.engaged or []
    return next(((before[1], after[0]) for before, after in zip(spans, spans[1:])
                 if max(begin, before[1]) < min(end, after[0])), None)


def too_slow(what: str, between: float, period: float) -> str:
    """Returns a sentence about images that come every `between` s while an action takes `period` s."""
    return (f"{what} come every {between:.3g} s, and an action takes {period:g} s: chunks of its rows would lack a part of the "
            f"motion; record faster, or give the policy's configuration an action_period_s of {between:.3g} or more")


def _action(convention: ActionConvention, frame: Frame, targets: list) -> Optional[np.ndarray]:
    if any(pose is None for pose, _ in targets):
        return None
    return np.concatenate([target_to_action(convention, pose, 0.0 if closed else 1.0, base)
                           for (pose, closed), (base, _) in zip(targets, frame.inference.bases)])
