"""One line a change: state, instruction, policy, episode, and what the filter did instead of what it was asked."""
from __future__ import annotations

import time
from typing import Callable, Optional

import rosgraph
import rospy

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.console.operator.desk import listen
from hybridvla_ros.console.operator.state import ConsoleState

LOOK_S, FIRST_S = 0.2, 3.0


def watch(say: Callable[[str], None], seconds: Optional[float] = None) -> int:
    """Says every change until Ctrl-C, or for so many seconds.

    Returns:
        0; 1 when nothing of ours has said anything.

    Raises:
        HybridVLAError: there is no master.
    """
    if not rosgraph.is_master_online():
        raise HybridVLAError(f"no ROS master answers at {rosgraph.get_master_uri()}; start a launch file first, or set "
                             "ROS_MASTER_URI (`hybridvla doctor` looks further)")
    rospy.init_node("hybridvla_watch", anonymous=True, disable_signals=True)
    spoken = []

    def tell(line: str) -> None:
        spoken.append(line)
        say(f"{time.strftime('%H:%M:%S')}  {line}")

    state = ConsoleState(tell)
    subscribers = listen(state)
    began = time.monotonic()
    asked = False
    while not rospy.is_shutdown() and (seconds is None or time.monotonic() - began < seconds):
        time.sleep(LOOK_S)
        state.look()
        if not spoken and not asked and time.monotonic() - began > FIRST_S:
            asked = True
            say("nothing is said on /hybridvla/...; does a safety filter run on this master?")
    for subscriber in subscribers:
        subscriber.unregister()
    return 0 if spoken else 1
