"""What each recorded moment is a label for: the next pose, or the next keyframe, in the policy's convention."""
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

LONGEST_GAP = 1.8       # periods between two rows; more would make one action of two


class DenseLabels:
    """A row each period; it leads to the pose one period later.

    Args:
        recording: what the arms did, or were commanded.
        convention: of the policy; its action period is above 0.
    """

    kind = NEXT_POSE

    def __init__(self, recording: RecordedMotion, convention: ActionConvention) -> None:
        self._tracks, self._until, self._convention = recording.tracks, recording.until, convention
        self._last = -math.inf

    def of(self, frame: Frame) -> Optional[np.ndarray]:
        """Computes the action of a frame: the poses one action period after its images.

        Args:
            frame: Of the recording, in the order of time.

        Returns:
            (A,) in the convention's units; None at the end of the recording, or of what counts of it.

        Raises:
            DataError: Images are missing between this frame and the one before.
        """
        stamp, period = frame.inference.observation.stamp_ns * 1e-9, self._convention.action_period_s
        if math.isfinite(self._last) and stamp - self._last > LONGEST_GAP * period:
            raise DataError(f"no usable images from {frame.time - (stamp - self._last):.2f} s to {frame.time:.2f} s; an action "
                            f"takes {period:g} s, so its rows would not follow each other")
        self._last = stamp
        if stamp + period > self._until:
            return None
        return _action(self._convention, frame, [(track.pose(stamp + period), track.closed(stamp + period))
                                                 for track in self._tracks])


class KeyframeLabels:
    """Each row leads to the next keyframe: where the arms come to rest or a gripper changes.

    Args:
        every: every frame is a row; otherwise only the frames at which a keyframe has been reached.
    """

    def __init__(self, recording: RecordedMotion, convention: ActionConvention, motion: MotionConfig, every: bool) -> None:
        self._finder = TruthFinder(recording, convention, motion)
        self._convention, self._every, self._next = convention, every, -math.inf
        self.kind = NEXT_KEYFRAME if every else NEXT_POSE

    def of(self, frame: Frame) -> Optional[np.ndarray]:
        """The (A,) action of a frame; None where it leads nowhere, or is no keyframe."""
        stamp = frame.inference.observation.stamp_ns * 1e-9
        if not self._every and stamp < self._next:
            return None
        truth, _ = self._finder.find(stamp)
        if truth is None:
            return None
        self._next = truth.at
        return _action(self._convention, frame, [(arm.pose, arm.closed) for arm in truth.arms])


def _action(convention: ActionConvention, frame: Frame, targets: list) -> Optional[np.ndarray]:
    if any(pose is None for pose, _ in targets):
        return None
    return np.concatenate([target_to_action(convention, pose, 0.0 if closed else 1.0, base)
                           for (pose, closed), (base, _) in zip(targets, frame.inference.bases)])
