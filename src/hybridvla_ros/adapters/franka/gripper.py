"""Runs the gripper in its own thread: one goal at a time, each with a deadline, never from the control thread.

franka_gripper's actions block and cannot be interrupted; a goal may not return for minutes. Requests that arrive meanwhile
wait, only the latest counts, and the state says FAILED until the gripper answers again.
"""
from __future__ import annotations

import math
import threading
import time
from typing import Any, Callable, Optional, Protocol, Tuple

from hybridvla_core.contracts import GripperState
from hybridvla_ros.runtime.workers import start_worker

STOP_S = 1.0         # how long to wait for the stop action, which users report as unreliable
RETRY_S = 0.2
SETTLE_S = 0.5       # after a grasp: the width is read at 10 Hz only
BELOW_MAX_M = 0.0005
CLOSED_M = 0.004     # nothing thinner counts as held


class Hand(Protocol):
    """A gripper that carries out one goal at a time."""

    def send(self, opening: float) -> str:
        """Begins a goal, 0 closed to 1 open; returns a sentence when it could not."""

    def finished(self) -> bool:
        """Tells whether the goal has ended."""

    def problem(self) -> str:
        """Says why the goal that ended was not reached; empty when it was."""

    def stop(self, seconds: float) -> None:
        """Asks the gripper to stop and waits at most `seconds`; no more than a request."""


class GripperWorker:
    """hand: the gripper to work with; only the worker's own thread calls it. clock: monotonic seconds."""

    def __init__(self, hand: Hand, deadline_s: float, slip_m: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._hand, self._deadline, self._slip, self._clock = hand, deadline_s, slip_m, clock
        self._wake = threading.Condition()
        self._wanted: Optional[float] = None
        self._outstanding = False
        self._held: Tuple[float, float] = (math.nan, math.inf)     # width of a grasp, and the time from which it counts
        self.state, self.message = GripperState.UNKNOWN, ""
        self.width = math.nan
        self.slips = self.timeouts = 0
        self._ended = False
        start_worker("commanding the gripper", self._loop)

    # From other threads --------------------------------------------------------------------------------------------

    def command(self, opening: float) -> None:
        """Accepts an opening: 0 closes and grasps, anything else opens that far (1: fully). Returns at once."""
        with self._wake:
            self._wanted = opening
            if not self._outstanding:       # a goal that never returned still blocks this one
                self.state, self.message = GripperState.MOVING, ""
            self._held = (math.nan, math.inf)
            self._wake.notify()

    def measured(self, width: float) -> None:
        """Takes the width read from the gripper, m. Notices an object that slips out of a grasp."""
        self.width = width
        with self._wake:
            held, since = self._held
            if self._clock() < since:
                return
            if math.isnan(held):
                self._held = (width, since)
            elif held > CLOSED_M and width < held - self._slip:
                self.slips += 1
                self.state = GripperState.FAILED
                self.message = f"the object slipped out of the gripper (it closed from {held * 1e3:.0f} to {width * 1e3:.0f} mm)"
                self._held = (math.nan, math.inf)

    def wait(self, seconds: float) -> bool:
        """Waits until the last command has ended well; for slow callers only."""
        end = self._clock() + seconds
        while self._clock() < end:
            if self.state in (GripperState.DONE, GripperState.FAILED):
                return self.state == GripperState.DONE
            time.sleep(0.02)
        return False

    def close(self) -> None:
        with self._wake:
            self._ended = True
            self._wake.notify()

    # The worker ----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            with self._wake:
                while self._wanted is None and not self._outstanding and not self._ended:
                    self._wake.wait()
                if self._ended:
                    return
            if self._outstanding and not self._hand.finished():
                time.sleep(RETRY_S)
                continue
            with self._wake:
                opening, self._wanted = self._wanted, None
                if self._outstanding and opening is not None:
                    self.state, self.message = GripperState.MOVING, ""
                self._outstanding = False
            if opening is not None:
                self._carry_out(opening)

    def _carry_out(self, opening: float) -> None:
        problem = self._hand.send(opening)
        end = self._clock() + self._deadline
        while not problem and not self._hand.finished():
            if self._clock() > end:
                self.timeouts += 1
                self._outstanding = True
                problem = f"the gripper did not finish within {self._deadline:.1f} s; check that nothing blocks it"
                self._hand.stop(STOP_S)
            time.sleep(0.01)
        problem = problem or self._hand.problem()
        with self._wake:
            if self._wanted is not None and not self._outstanding:
                return      # another command came meanwhile and is under way now
            self.state = GripperState.FAILED if problem else GripperState.DONE
            self.message = problem
            if not problem and opening <= 0.0:
                self._held = (math.nan, self._clock() + SETTLE_S)


class FrankaHand:
    """`move` and `grasp` of franka_gripper as actions. Topics: `gripper_move` and `gripper_grasp` of the arm."""

    def __init__(self, move: str, grasp: str, max_width: float, speed: float, force: float, epsilon: float) -> None:
        import actionlib
        from franka_gripper.msg import GraspAction, MoveAction, StopAction

        self._lib = actionlib
        self._move, self._grasp = actionlib.SimpleActionClient(move, MoveAction), actionlib.SimpleActionClient(grasp, GraspAction)
        self._stop = actionlib.SimpleActionClient(move.rsplit("/", 1)[0] + "/stop", StopAction)
        self._max_width, self._speed, self._force, self._epsilon = max_width, speed, force, epsilon
        self._names = {id(self._move): move, id(self._grasp): grasp}
        self._active: Any = None

    def reachable(self, seconds: float) -> str:
        """Returns a sentence naming the action that nobody serves, or an empty string."""
        import rospy

        for client in (self._move, self._grasp):
            if not client.wait_for_server(rospy.Duration(seconds)):
                return f"{self._names[id(client)]} does not answer; is franka_gripper running (load_gripper:=true)?"
        return ""

    def send(self, opening: float) -> str:
        """Begins a goal; returns a sentence when it could not."""
        from franka_gripper.msg import GraspEpsilon, GraspGoal, MoveGoal

        problem = self.reachable(0.5)
        if problem:
            return problem
        if opening <= 0.0:
            # Width 0 with a wide outer epsilon: whatever is between the fingers counts as grasped.
            goal: Any = GraspGoal(width=0.0, epsilon=GraspEpsilon(inner=0.005, outer=self._epsilon), speed=self._speed,
                                  force=self._force)
            self._active = self._grasp
        else:
            # A width above the one that homing found is an error, and that width may be just below the nominal one.
            goal = MoveGoal(width=max(0.0, min(opening, 1.0) * self._max_width - BELOW_MAX_M), speed=self._speed)
            self._active = self._move
        self._active.send_goal(goal)
        return ""

    def finished(self) -> bool:
        status = self._lib.GoalStatus
        return self._active is None or self._active.get_state() not in (status.PENDING, status.ACTIVE)

    def problem(self) -> str:
        """Says why the goal that ended was not reached, or an empty string."""
        if self._active is None or self._active.get_state() == self._lib.GoalStatus.SUCCEEDED:
            return ""
        result = self._active.get_result()
        return (f"{self._names[id(self._active)]} failed: {getattr(result, 'error', '') or 'no reason given'}; home the "
                "gripper if it has not been since power-up")

    def stop(self, seconds: float) -> None:
        """Asks the gripper to stop; no more than a request."""
        import rospy
        from franka_gripper.msg import StopGoal

        self._active.cancel_goal()
        if self._stop.wait_for_server(rospy.Duration(seconds)):
            self._stop.send_goal_and_wait(StopGoal(), rospy.Duration(seconds))
