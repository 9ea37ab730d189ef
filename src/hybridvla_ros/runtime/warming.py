"""The first predictions of a policy, for which a server may need longer than its deadline."""
from __future__ import annotations

import time
from typing import Callable

import rospy

from hybridvla_core.errors import ObservationError

#: Pause before a failed prediction is asked for again, s.
AGAIN_S = 0.5


def first_answer(predict: Callable[[], object], patience_s: float) -> None:
    """Predicts, and tries again after a failure, until it succeeds.

    Args:
        predict: Asks for one prediction.
        patience_s: How long failed predictions are repeated, s.

    Raises:
        ObservationError: It still fails after `patience_s`, or when the node ends.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            predict()
            return
        except ObservationError as error:
            if time.monotonic() >= until or rospy.is_shutdown():
                raise
            rospy.logwarn("the first prediction: %s; trying again", error)
            time.sleep(AGAIN_S)
