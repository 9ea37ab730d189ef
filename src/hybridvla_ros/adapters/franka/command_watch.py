"""Finds who else commands the arm, by their messages and by the master's list."""
from __future__ import annotations

import time

import rosgraph
import rospy

from hybridvla_ros.adapters.adapter import publishers_beside_us
from hybridvla_ros.adapters.franka import driver as driver_module
from hybridvla_ros.adapters.franka.arm import FrankaArm
from hybridvla_ros.adapters.franka.start_up import StartUp
from hybridvla_ros.runtime.graph_watch import SystemState
from hybridvla_ros.runtime.workers import start_worker

FOREIGN_S = 1.0          # how long a foreign command is remembered
WATCH_S = 1.0            # between checks that our controller still runs


class CommandWatch:
    """Stops our controller when another node commands the arm, and notices when the controller is lost.

    Args:
        arm: The arm.
        start_up: Restarted after a controller was stopped or lost.

    Attributes:
        fault: Another node commanded the arm; latched until that node is gone.
        announced: Another node has announced to publish on our command topic.
    """

    def __init__(self, arm: FrankaArm, start_up: StartUp) -> None:
        self._arm, self._start_up = arm, start_up
        self.fault = self.announced = self._foreign_name = ""
        self._foreign_at = float("-inf")

    def begin(self) -> None:
        """Begins to listen and to check."""
        rospy.Subscriber(self._arm.command_topic, rospy.AnyMsg, self._on_command, queue_size=20, tcp_nodelay=True)
        start_worker("watching our controller", self._watch)

    def _on_command(self, message: rospy.AnyMsg) -> None:
        sender = message._connection_header.get("callerid", "")
        if sender == rospy.get_name():
            return
        self._foreign_name, self._foreign_at = sender, time.monotonic()
        if not self.fault and self._start_up.done and not self._start_up.dry_run:
            self.fault = f"{sender} also commands the arm on {self._arm.command_topic}; the controller was stopped: end that node"
            rospy.logerr("%s", self.fault)
            self._arm.report()
            start_worker("stopping our controller", self._disarm)

    def _disarm(self) -> None:
        """Stops our controller: two nodes must not pull at one target. The robot then holds by itself."""
        with self._arm.hands_off:
            try:
                self._arm.driver.switch(stop=[self._arm.controller])
            except driver_module.DriverError as error:
                rospy.logerr("%s", error)
        self._start_up.restart("the controller was stopped because another node commanded the arm")
        while not rospy.is_shutdown():
            time.sleep(0.2)
            try:
                if not self.foreign():
                    break
            except (OSError, rosgraph.MasterException) as error:
                rospy.logwarn_throttle(5.0, "the master does not answer (%s)", error)
        self.fault = ""

    def foreign(self) -> str:
        """Names who else publishes on our command topic, or did so within the last second."""
        if time.monotonic() - self._foreign_at < FOREIGN_S:
            return f"{self._foreign_name} publishes on {self._arm.command_topic}; end it (the interactive marker, say)"
        return self.announcements(rosgraph.Master(rospy.get_name()).getSystemState())

    def announcements(self, system_state: SystemState) -> str:
        """Checks who else has announced to publish on our command topic. Until they are gone the arm takes no commands.

        Args:
            system_state: The master's list.

        Returns:
            A sentence that names them, empty when there are none.
        """
        self.announced = publishers_beside_us([self._arm.command_topic], system_state, "stop it")
        return self.announced

    def _watch(self) -> None:
        """Checks that our controller runs. The manager says `running` even in errors, so this finds one stopped or lost."""
        while not rospy.is_shutdown():
            time.sleep(WATCH_S)
            if not self._start_up.done or self._start_up.dry_run or self._arm.busy:
                continue
            if not self._arm.hands_off.acquire(blocking=False):
                continue
            try:
                running = self._arm.driver.controllers().get(self._arm.controller) == "running"
                if not running and not self._arm.busy:
                    self._start_up.restart(f"controller {self._arm.controller} is no longer running")
            except driver_module.DriverError as error:
                rospy.logwarn_throttle(5.0, "%s", error)
            finally:
                self._arm.hands_off.release()
