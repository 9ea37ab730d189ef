"""The first predictions of a policy, of which a server may take longer than its deadline."""
from __future__ import annotations

import time
from typing import Callable

import rospy

from hybridvla_core.errors import ObservationError

#: Before a prediction that failed is asked for again, s.
AGAIN_S = 0.5


def first_answer(predict: Callable[[], object], patience_s: float) -> None:
    """Predicts, and again where that fails, until it succeeds.

    Args:
        predict: Asks for one prediction.
        patience_s: How long a failure is followed by another try, s.

    Raises:
        ObservationError: It still fails when `patience_s` is over, or the node ends.
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
