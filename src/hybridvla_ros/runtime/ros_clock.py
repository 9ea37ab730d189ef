"""Detects ROS time that stands still: `/use_sim_time` is set, and nobody publishes `/clock`."""
from __future__ import annotations

import threading
import time
from typing import Callable

import rospy

from hybridvla_ros.runtime.workers import Rate

#: How often a node checks ROS time, and how long it may stand still before it is named, s.
PERIOD_S, STILL_S = 0.5, 3.0


class StoppedClock:
    """Judges ROS time at each check.

    Args:
        simulated: Whether this node takes its time from `/clock`.
        ros_now: Returns ROS time, s.
        wall: Returns time that runs evenly, s.
    """

    def __init__(self, simulated: Callable[[], bool] = lambda: not rospy.rostime.is_wallclock(),
                 ros_now: Callable[[], float] = lambda: rospy.Time.now().to_sec(),
                 wall: Callable[[], float] = time.monotonic) -> None:
        self._simulated, self._ros_now, self._wall = simulated, ros_now, wall
        self._last, self._changed_at = -1.0, wall()
        self._lock = threading.Lock()
        self._problem = ""

    def look(self) -> str:
        """Checks; returns a sentence while ROS time stands still, or an empty string."""
        with self._lock:
            if not self._simulated():
                self._problem = ""
                return ""
            stamp, now = self._ros_now(), self._wall()
            if stamp != self._last:
                self._last, self._changed_at = stamp, now
            still = now - self._changed_at
            if still < STILL_S:
                self._problem = ""
            elif stamp:
                self._problem = (f"/use_sim_time is true and /clock has stood still for {still:.0f} s, so time stands still "
                                 "for this node: what publishes /clock is paused or gone")
            else:
                self._problem = ("/use_sim_time is true and nothing comes on /clock, so time stands still for this node; "
                                 "start what publishes /clock, or, if an earlier session left the parameter: rosparam set "
                                 "/use_sim_time false, and start the nodes again")
            return self._problem

    @property
    def problem(self) -> str:
        """Returns what the last check found."""
        return self._problem


#: One for each process, like rospy's time.
_CLOCK = StoppedClock()


def clock_problem() -> str:
    """Returns why ROS time means nothing in this process now, or an empty string. Needs `watch_clock`."""
    return _CLOCK.problem


def watch_clock() -> None:
    """Names a stopped clock in this node's log, once for each time that it stops."""
    named = [False]

    def look() -> None:
        problem = _CLOCK.look()
        if problem and not named[0]:
            rospy.logerr("%s: %s", rospy.get_name(), problem)
        elif named[0] and not problem:
            rospy.logwarn("%s: /clock runs again", rospy.get_name())
        named[0] = bool(problem)
    Rate(PERIOD_S, look, "watching ROS time")
