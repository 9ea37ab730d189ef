"""The label of each recorded moment: the next pose, or the next keyframe, in the policy's convention."""
from __future__ import annotations

import math
from typing import Optional

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
            what = "no usable images" if self._followed(self._last, stamp) else "the filter followed nobody for a while,"
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

    def _followed(self, begin: float, end: float) -> bool:
        spans = self._recording.engaged or []
        return not any(max(begin, before[1]) < min(end, after[0]) for before, after in zip(spans, spans[1:]))


class KeyframeLabels:
    """Labels rows that lead to the next keyframe: where the arms come to rest or a gripper changes.

    Args:
        every: Whether every frame is a row; otherwise only the frames at which a keyframe has been reached are.
    """

    def __init__(self, recording: RecordedMotion, convention: ActionConvention, motion: MotionConfig, every: bool) -> None:
        self._finder = TruthFinder(recording, convention, motion)
        self._convention, self._every, self._next = convention, every, -math.inf
        self.kind = NEXT_KEYFRAME if every else NEXT_POSE

    def of(self, frame: Frame) -> Optional[np.ndarray]:
        """Returns the (A,) action of a frame; None if it leads nowhere, or is not a keyframe."""
        stamp = frame.inference.observation.stamp_ns * 1e-9
        if not self._every and stamp < self._next:
            return None
        truth, _ = self._finder.find(stamp)
        if truth is None:
            return None
        self._next = truth.at
        return _action(self._convention, frame, [(arm.pose, arm.closed) for arm in truth.arms])

    def finish(self) -> None:
        """Does nothing: keyframes have no rate."""


def too_slow(what: str, between: float, period: float) -> str:
    """Returns a sentence about images that come every `between` s while an action takes `period` s."""
    return (f"{what} come every {between:.3g} s, and an action takes {period:g} s: chunks of its rows would lack a part of the "
            f"motion; record faster, or give the policy's configuration an action_period_s of {between:.3g} or more")


def _action(convention: ActionConvention, frame: Frame, targets: list) -> Optional[np.ndarray]:
    if any(pose is None for pose, _ in targets):
        return None
    return np.concatenate([target_to_action(convention, pose, 0.0 if closed else 1.0, base)
                           for (pose, closed), (base, _) in zip(targets, frame.inference.bases)])
