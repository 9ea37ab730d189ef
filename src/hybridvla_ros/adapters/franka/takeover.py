"""Leading the arm by hand: no stiffness, and targets that follow the measured pose, so that nothing pulls at the end."""
from __future__ import annotations

import threading
import time
from typing import Callable, ContextManager

import rospy

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.adapters.franka import reading
from hybridvla_ros.adapters.franka.arm import FrankaArm
from hybridvla_ros.filter_handle import FilterHandle
from hybridvla_ros.messages import conversions
from hybridvla_ros.runtime.node_support import publish_unless_ending
from hybridvla_ros.runtime.workers import start_worker

FOLLOW_S = 0.02          # between targets that follow a led arm
SETTLE_S = 1.2           # six time constants of the controller's stiffness filter


class Takeover:
    """Takes the arm from the filter and gives it back.

    Args:
        arm: The arm.
        safety: The filter, which has to be out of the way.
        alone: Holds the arm during the operation that it is given; see `FrankaArm.alone`.
    """

    def __init__(self, arm: FrankaArm, safety: FilterHandle, alone: Callable[[str], ContextManager[None]]) -> None:
        self._arm, self._safety, self._alone = arm, safety, alone
        self._led = threading.Event()
        self._followed = False         # whether the target follows the arm

    def take(self) -> str:
        """Removes the stiffness; targets follow the measured pose.

        Returns:
            A sentence.

        Raises:
            HybridVLAError: The arm may not be taken now; it is unchanged.
        """
        robot = self._arm
        if self._led.is_set():
            _refuse(self._forgotten())
            return "a person leads the arm already"
        if robot.config.door != "cartesian":
            raise HybridVLAError("the joint door has no stiffness to take away; use the guiding buttons at the arm")
        deactivated = self._safety.deactivate()
        _refuse(deactivated.problem or self._safety.forbids(deactivated.ends) or robot.problem())
        with self._alone("a person takes the arm"):
            _refuse(self._safety.forbids(deactivated.ends) or robot.unheard())      # waiting for the arm may have taken time
            self._led.set()
            self._followed = True
            start_worker("following the hand that leads the arm", self._follow)
            try:
                robot.driver.soft()
            except HybridVLAError:
                self._led.clear()
                time.sleep(3 * FOLLOW_S)     # by now the thread has seen it
                raise
        return "the arm is soft: lead it by hand; call takeover with false to give it back"

    def give_back(self) -> str:
        """Restores the stiffness while the target still follows; then the target stays where it is.

        Stiffness pulls towards the last target. If the target is not where the arm is, the arm stays soft.

        Returns:
            A sentence.

        Raises:
            HybridVLAError: Nobody leads the arm, or nobody knows where it is; it stays soft then.
        """
        robot = self._arm
        if not self._led.is_set():
            raise HybridVLAError("nobody leads the arm")
        _refuse(self._not_followed())
        with self._alone("the arm becomes stiff"):
            _refuse(self._not_followed())            # waiting for the arm may have taken time
            robot.driver.stiff()
            end = time.monotonic() + SETTLE_S
            while time.monotonic() < end:
                problem = self._not_followed()
                if problem:
                    robot.driver.soft()
                    raise HybridVLAError(problem)
                time.sleep(FOLLOW_S)
            self._led.clear()
            time.sleep(3 * FOLLOW_S)
        return "the arm holds where it is; call activate"

    def _not_followed(self) -> str:
        """Says why the target is not where the arm is; empty when it is."""
        silent = self._arm.unheard()
        return self._forgotten() or (silent and f"{silent}: nobody knows where the arm is, so it stays soft; check the "
                                                "driver, then call takeover with false again")

    def _forgotten(self) -> str:
        return "" if self._followed else (
            "the target does not follow the arm any more, so it stays soft: hold it, and start the filter's node again")

    def _follow(self) -> None:
        robot = self._arm
        try:
            with robot.led():
                while self._led.is_set() and not rospy.is_shutdown():
                    if not robot.unheard():          # an old pose is not sent again with a new stamp
                        pose = reading.pose(robot.state.O_T_EE)
                        message = conversions.pose_message(pose, robot.arm.base_frame, rospy.Time.now().to_sec())
                        publish_unless_ending(robot.poses, message)
                    time.sleep(FOLLOW_S)
        finally:
            self._followed = False


def _refuse(problem: str) -> None:
    if problem:
        raise HybridVLAError(problem)
