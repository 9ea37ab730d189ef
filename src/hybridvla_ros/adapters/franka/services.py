"""Operations on the arm besides following the filter: recovery, the motion to the start, a new payload.

Leading by hand: `takeover.py`. Each operation is a service, holds the arm while it lasts, and tells the filter that the arm
takes no commands.
"""
from __future__ import annotations

import time
from typing import Callable, ContextManager, Sequence, Tuple

import numpy as np
import rospy
from std_srvs.srv import SetBool, SetBoolResponse, Trigger, TriggerResponse
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from hybridvla.srv import SetPayload, SetPayloadResponse
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots.franka import FARTHEST_CENTER_M
from hybridvla_core.safety.status import State
from hybridvla_ros.adapters.franka import reading
from hybridvla_ros.adapters.franka.arm import FrankaArm
from hybridvla_ros.adapters.franka.command_watch import CommandWatch
from hybridvla_ros.adapters.franka.start_path import StartPath
from hybridvla_ros.adapters.franka.start_up import StartUp
from hybridvla_ros.adapters.franka.takeover import Takeover
from hybridvla_ros.filter_handle import FilterHandle

STILL_RAD_S = 0.02       # an arm slower than this is at rest
MODE_S = 3.0             # the robot's mode follows a switch of controllers within some 10 ms
STOP_S = 1.0             # after this, an arm told to stop on its way to the start has stopped
ARRIVED_RAD, LATE_S = 0.02, 4.0
HEAVIEST_KG = 3.0        # payload of a Research 3


class ArmServices:
    """The services under `/hybridvla/robot`.

    Args:
        arm: The arm that the services act on.
        start_up: Knows whether our controller is meant to run.
        watch: Knows whether another node commanded the arm.
        safety: The filter, which has to be out of the way.
    """

    def __init__(self, arm: FrankaArm, start_up: StartUp, watch: CommandWatch, safety: FilterHandle) -> None:
        self._arm, self._start_up, self._watch, self._safety = arm, start_up, watch, safety
        self._path = StartPath(arm.config)
        self._takeover = Takeover(arm, safety, self._alone)
        rospy.Service("/hybridvla/robot/recover", Trigger, lambda _request: TriggerResponse(*self._safely(self._recover)))
        rospy.Service("/hybridvla/robot/takeover", SetBool, lambda request: SetBoolResponse(
            *self._safely(self._takeover.take if request.data else self._takeover.give_back)))
        rospy.Service("/hybridvla/robot/set_payload", SetPayload, lambda request: SetPayloadResponse(
            *self._safely(lambda: self._payload(request.mass_kg, request.center_m))))

    def go_to_start(self, since: int) -> Tuple[bool, str]:
        """Moves the joints slowly to the start, on a path checked against the limits first. The filter is inactive already.

        Args:
            since: `FilterHandle.ends` when it became inactive: a later stop or deactivation ends the motion.

        Returns:
            Whether the arm got there, and a sentence.
        """
        return self._safely(lambda: self._go_to_start(since))

    def _safely(self, work: Callable[[], str]) -> Tuple[bool, str]:
        try:
            message = work()
        except HybridVLAError as error:
            rospy.logwarn("%s", error)
            return False, str(error)
        rospy.loginfo("%s", message)
        return True, message

    def _alone(self, what: str) -> ContextManager[None]:
        return self._arm.alone(what, lambda: self._start_up.says)

    def _refuse_if_forbidden(self, since: int) -> None:
        problem = self._safety.forbids(since)
        if problem:
            raise HybridVLAError(problem)

    def _let_go(self, controller: str) -> str:
        """Stops a controller, and waits until the robot says that nothing moves it.

        Never combine this with a start in one call: between two controllers the robot goes through IDLE, and the controller that
        starts forgets what came before. A MOVE seen too early still belongs to the previous controller.

        Returns:
            A sentence where the robot does not say so in time.
        """
        self._arm.driver.switch(stop=[controller])
        return self._arm.wait_for_mode(reading.IDLE, MODE_S)

    def _restart(self, controller: str) -> str:
        """Starts a controller, which latches the present pose; returns a sentence when it does not start."""
        self._arm.driver.switch(start=[controller])
        return self._arm.wait_for_mode(reading.MOVE, MODE_S)

    # Recovery ------------------------------------------------------------------------------------------------------

    def _recover(self) -> str:
        """Recovers: nothing is published (the filter is stopped), controllers stop, recovery runs, controllers start, latch."""
        robot, state = self._arm, self._safety.state
        if self._safety.dry_run:
            raise HybridVLAError("this is a dry run: no controller of ours is to be brought back; clear the cause at the robot, "
                                 "then call resume")
        if state not in (State.STOPPED, State.INACTIVE):
            raise HybridVLAError(f"the filter is {state.name}: there is nothing to recover from")
        with self._alone("error recovery"):
            mode = robot.state.robot_mode
            if mode in (reading.USER_STOPPED, reading.GUIDING):
                raise HybridVLAError(f"robot mode {reading.MODES[mode]}: {reading.ADVICE[mode]}")
            robot.driver.switch(stop=[robot.franka.impedance_controller, robot.franka.trajectory_controller])
            robot.driver.recover()
            problem = robot.wait_for_mode(reading.IDLE, 5.0)
            if problem:
                raise HybridVLAError(f"after the recovery: {problem}")
            if self._start_up.done:
                problem = self._restart(robot.controller)
                if problem:
                    raise HybridVLAError(problem)
        return f"recovered, the arm holds where it is; call {'resume' if state == State.STOPPED else 'activate'}"

    # The way to the start ------------------------------------------------------------------------------------------

    def _go_to_start(self, since: int) -> str:
        robot, franka = self._arm, self._arm.franka
        problem = self._safety.forbids(since) or robot.problem()
        if problem:
            raise HybridVLAError(problem)
        with self._alone("moving to the start pose"):
            self._refuse_if_forbidden(since)     # waiting for the arm may have taken time
            self._path.plan(np.array(robot.state.q), franka.start_speed_rad_s)   # before anything is let go of
            if franka.opens_at_start and robot.gripper is not None and not self._open_gripper():
                raise HybridVLAError(f"the gripper did not open: {robot.gripper.message or 'no answer in time'}")
            self._refuse_if_forbidden(since)     # the gripper takes seconds
            times, points = self._path.plan(np.array(robot.state.q), franka.start_speed_rad_s)
            robot.driver.load(franka.trajectory_controller)
            ours = robot.controller == franka.trajectory_controller      # the joint door's controller goes on
            back = ""
            try:
                problem = (robot.wait_for_mode(reading.MOVE, MODE_S) if ours else self._let_go(robot.controller)
                           or self._restart(franka.trajectory_controller)) or self._drive(times, points, since)
            finally:
                if not ours and reading.mode_problem(robot.state, commanded=False):     # no mode to wait for before a recovery
                    robot.driver.switch(start=[robot.controller], stop=[franka.trajectory_controller])
                elif not ours:
                    # An arm whose driver never says IDLE still gets its controller back.
                    back = self._let_go(franka.trajectory_controller)
                    back = self._restart(robot.controller) or back
            if problem:
                raise HybridVLAError(f"stopped on the way to the start: {problem}")
            if back:
                raise HybridVLAError(back)
        return "at the start pose"

    def _open_gripper(self) -> bool:
        gripper = self._arm.gripper
        if gripper.width > 0.95 * self._arm.arm.gripper.max_width_m:
            return True
        gripper.command(1.0)
        return gripper.wait(self._arm.arm.gripper.deadline_s + 1.0)

    def _drive(self, times: np.ndarray, points: np.ndarray, since: int) -> str:
        """Sends the trajectory and watches it; whatever goes wrong, an empty trajectory stops the arm where it is."""
        robot, names = self._arm, list(self._arm.arm.joint_names)
        deadline = time.monotonic() + 3.0
        while robot.trajectories.get_num_connections() == 0:
            if time.monotonic() > deadline:
                return f"nobody listens on {robot.arm.topics['trajectory']}"
            time.sleep(0.02)
        problem = self._hindrance(since)     # time has passed since the last check: controllers were switched and waited for
        if problem:
            return problem
        robot.trajectories.publish(JointTrajectory(joint_names=names, points=[
            JointTrajectoryPoint(positions=point.tolist(), velocities=[0.0] * len(point),
                                 time_from_start=rospy.Duration(float(moment))) for moment, point in zip(times, points)]))
        deadline = time.monotonic() + 2.0 * float(times[-1]) + LATE_S
        while True:
            time.sleep(0.02)
            away = float(np.abs(np.array(robot.state.q) - points[-1]).max())
            if away < ARRIVED_RAD and self._still():
                return ""
            problem = self._hindrance(since)
            if not problem and time.monotonic() > deadline:
                problem = f"the arm is still {away:.2f} rad away"
            if problem:
                robot.trajectories.publish(JointTrajectory())
                self._rest()
                return problem

    def _hindrance(self, since: int) -> str:
        """Says why the arm may not move to the start; empty when it may."""
        return (self._safety.forbids(since) or self._arm.fought_over() or self._arm.unheard() or self._watch.fault
                or reading.mode_problem(self._arm.state, commanded=True))

    def _still(self) -> bool:
        return float(np.abs(np.array(self._arm.state.dq)).max()) < STILL_RAD_S

    def _rest(self) -> None:
        """Waits until the arm has stopped: a controller that starts on a moving arm latches a pose the arm has already left."""
        deadline = time.monotonic() + STOP_S
        while not self._still() and time.monotonic() < deadline:
            time.sleep(0.02)

    # Payload -------------------------------------------------------------------------------------------------------

    def _payload(self, mass_kg: float, center_m: Sequence[float]) -> str:
        """Tells the robot what it carries.

        The robot accepts that only without a controller, so the brakes hold the arm for a moment. An active filter becomes active
        again afterwards, seeded where the arm is.

        Args:
            mass_kg: Mass of what the hand holds, kg.
            center_m: (3,) its centre of mass, in the frame of the flange, m.

        Returns:
            A sentence with the new payload.

        Raises:
            HybridVLAError: It is too heavy or not a number, the robot is not ready, or the filter stays inactive afterwards.
        """
        robot = self._arm
        if not 0.0 <= mass_kg <= HEAVIEST_KG or not (np.abs(center_m) <= FARTHEST_CENTER_M).all():
            raise HybridVLAError(f"a payload of {mass_kg:g} kg at {[float(value) for value in center_m]} m is not possible; "
                                 f"use 0 to {HEAVIEST_KG:g} kg, and a centre within {FARTHEST_CENTER_M:g} m of the flange on "
                                 "each axis")
        problem = "this is a dry run" if self._safety.dry_run else robot.problem()
        if problem:      # before the filter is told anything: what is refused leaves an active filter active
            raise HybridVLAError(problem)
        deactivated = self._safety.deactivate()
        problem = deactivated.problem or robot.problem()     # the arm may have taken seconds to rest
        if problem:
            raise HybridVLAError(problem)
        with self._alone("the payload is being changed"):
            try:
                problem = self._let_go(robot.controller)
                if not problem:
                    robot.carry((mass_kg, tuple(center_m)))
            finally:
                problem = self._restart(robot.controller) or problem
            if problem:
                raise HybridVLAError(problem)
        if deactivated.followed:
            done, message = self._safety.activate(deactivated.ends)
            if not done:
                raise HybridVLAError(f"the payload is {mass_kg:.2f} kg, but the filter stays inactive: {message}")
        return f"the payload is {mass_kg:.2f} kg"
