"""Start-up in a stated order: each step is checked; the first that fails is named and tried again.

Nothing here moves the arm: the controller, once started, holds the pose it finds.
"""
from __future__ import annotations

import time
from typing import Callable, List, Tuple

import rosgraph
import rospy

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.waiting import Event
from hybridvla_ros.adapters.franka import reading
from hybridvla_ros.adapters.franka.arm import FrankaArm
from hybridvla_ros.runtime.workers import start_worker

RETRY_S = 1.0
FRESH_S = 1.0
MODE_S = 3.0
HUNG_S = 15.0            # longer than any step takes that gets an answer
RATE_SHARE = 0.98        # of min_state_hz: the grid of the driver's clock
LOAD_KG = 0.02


class StartUp:
    """Runs the steps in its own thread until all have passed, and again on request.

    Args:
        arm: The arm that it checks and starts.
        foreign: Names who else commands the arm, or returns an empty string.
        dry_run: Whether to run only the steps that change nothing.

    Attributes:
        done: Whether all steps have passed.
        problem: Why they have not.
    """

    def __init__(self, arm: FrankaArm, foreign: Callable[[], str], dry_run: bool) -> None:
        self._arm, self._foreign, self.dry_run = arm, foreign, dry_run
        self.done = False
        self.problem = "start-up has not begun"
        self._again = Event()
        self._step = ("", 0.0)     # the check under way, and since when

    def begin(self) -> None:
        """Begins with the first step."""
        start_worker("the start-up of the arm", self._loop)

    @property
    def says(self) -> str:
        """Says why the arm takes no commands, or an empty string. Also names a driver that hangs in a call."""
        name, since = self._step
        waited = time.monotonic() - since
        if name and waited > HUNG_S:
            return f"{name}: no answer for {waited:.0f} s; restart the driver"
        return self.problem

    def restart(self, why: str) -> None:
        """Starts over; until all steps have passed the arm takes no commands."""
        self.done, self.problem = False, why
        self._again.set()

    def follow(self, dry_run: bool) -> None:
        """Starts over when the filter's dry run begins or ends."""
        if dry_run != self.dry_run:
            self.dry_run = dry_run
            self.restart("start-up begins again: the dry run was switched")

    def steps(self) -> List[Tuple[str, Callable[[], str]]]:
        """Returns name and check of each step, in order; a check returns a sentence when it fails."""
        look = [("driver", self._driver), ("arm_id", self._arm_id), ("state rate", self._rate), ("robot mode", self._mode),
                ("publishers", self._publishers)]
        end = [("tool pose", self._tool_pose), ("gripper", self._gripper)]
        if self.dry_run:
            return [*look, ("tool frame", self._tool_frame), *end]
        door = self._arm.config.door
        return [*look, ("controllers stopped", self._stop_controllers), ("tool frame", self._tool_frame),
                ("load", self._load), ("collision thresholds", self._collision), ("controller loaded", self._load_controller),
                *([("stiffness", self._stiffness)] if door == "cartesian" else []),
                ("controller started", self._start_controller), *end]

    def _loop(self) -> None:
        while not rospy.is_shutdown():
            if self.done:
                self._again.wait(0.5)
                continue
            self._again.clear()
            problem = self._run()
            if not self._again.is_set():
                if problem and problem != self.problem:
                    rospy.logwarn("%s", problem)
                self.problem, self.done = problem, not problem
            if self.done:
                rospy.loginfo("start-up passed: %s", ", ".join(name for name, _ in self.steps()))
            else:
                time.sleep(RETRY_S)

    def _run(self) -> str:
        steps = self.steps()
        for number, (name, check) in enumerate(steps, 1):
            with self._arm.hands_off:
                self._step = (f"start-up, step {number} of {len(steps)}, {name}", time.monotonic())
                try:
                    problem = check()
                except (HybridVLAError, OSError, rosgraph.MasterException, rospy.ROSException) as error:
                    problem = str(error)
                self._step = ("", 0.0)
            if problem:
                return f"start-up, step {number} of {len(steps)}, {name}: {problem}"
        return ""

    # The steps -----------------------------------------------------------------------------------------------------

    def _driver(self) -> str:
        state_topic = self._arm.arm.topics["robot_state"]
        if time.monotonic() - self._arm.heard > FRESH_S:
            return f"nothing on {state_topic}; start franka_control (robot_ip, robot:=fr3) and unlock the joints in Desk"
        if time.monotonic() - self._arm.joints_heard > FRESH_S:
            return f"nothing on {self._arm.arm.topics['joint_states']}; is franka_state_controller running?"
        return ""

    def _arm_id(self) -> str:
        wanted, found = self._arm.arm.joint_names, self._arm.joint_names
        if set(wanted) <= set(found):
            return ""
        return (f"joint states name {found[0] if found else 'nothing'}, configured is {wanted[0]}; launch the driver with the "
                "arm_id of the robot's configuration, or change joint_names and base_frame there")

    def _rate(self) -> str:
        franka, deadline = self._arm.franka, time.monotonic() + 10.0
        while not self._arm.rate.hz > 0.0 and time.monotonic() < deadline:
            time.sleep(0.05)
        hz = self._arm.rate.hz
        if hz >= RATE_SHARE * franka.min_state_hz:
            return ""
        return (f"states come at {hz:.0f} Hz, {franka.min_state_hz:.0f} are needed; set "
                "/franka_state_controller/publish_rate to 400 before its controller is spawned (what comes out is less than "
                "what is set)")

    def _mode(self) -> str:
        return reading.mode_problem(self._arm.state, commanded=False)

    def _publishers(self) -> str:
        return self._foreign()

    def _stop_controllers(self) -> str:
        states = self._arm.driver.controllers()
        ours = (self._arm.franka.impedance_controller, self._arm.franka.trajectory_controller)
        others = [name for name, state in states.items()
                  if state == "running" and name not in ours and name != "franka_state_controller"]
        if others:
            return f"controller {others[0]} is running and not ours; stop it"
        if "franka_state_controller" not in states:
            return "franka_state_controller is not loaded; start the driver with its own launch file"
        self._arm.driver.switch(stop=ours)
        return ""

    def _tool_frame(self) -> str:
        config = self._arm.config
        return reading.tool_problem(self._arm.state, self._arm.arm, config.tcp_tolerance_m, config.tcp_tolerance_rad)

    def _load(self) -> str:
        state, arm = self._arm.state, self._arm.arm
        if state.m_ee > arm.tool.mass_kg + LOAD_KG:
            return (f"Desk has the end effector at {state.m_ee:.2f} kg, tool.mass_kg is {arm.tool.mass_kg:.2f}; make them "
                    "agree")
        self._arm.carry(self._arm.payload)      # a restarted driver has forgotten it
        return ""

    def _collision(self) -> str:
        self._arm.driver.set_collision()
        return ""

    def _load_controller(self) -> str:
        self._arm.driver.load(self._arm.controller)
        return ""

    def _stiffness(self) -> str:
        self._arm.driver.stiff()
        return ""

    def _start_controller(self) -> str:
        self._arm.driver.switch(start=[self._arm.controller])
        return self._arm.wait_for_mode(reading.MOVE, MODE_S)

    def _tool_pose(self) -> str:
        distance, angle = self._arm.pose_error()
        config = self._arm.config
        if distance <= config.tcp_tolerance_m and angle <= config.tcp_tolerance_rad:
            return ""
        return (f"the driver's tool pose differs from ours by {distance * 1e3:.1f} mm and {angle:.4f} rad; check kinematics "
                "and tool in the robot's configuration")

    def _gripper(self) -> str:
        return self._arm.hand.reachable(2.0) if self._arm.hand is not None else ""
