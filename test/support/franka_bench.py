"""An FR3 for tests of everything besides following the filter, without a graph. Its driver records the calls it receives."""
from __future__ import annotations

import threading

import numpy as np
from franka_msgs.msg import FrankaState

from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_ros.adapters.franka import reading
from hybridvla_ros.adapters.franka.arm import NOTHING, FrankaArm


class Driver:
    """A driver that accepts every call. `do`: further actions to run at a call, by the call's name."""

    def __init__(self):
        self.calls, self.do = [], {}

    def __getattr__(self, name):
        def call(*_arguments, **keys):
            self.calls.append(name if not keys else (name, keys))
            self.do.get(name, lambda: None)()
        return call


class Topic:
    def __init__(self):
        self.sent = []

    def get_num_connections(self):
        return 1

    def publish(self, message):
        self.sent.append(message)


class Arm(FrankaArm):
    """The arm as its driver reports it, without topics. `speaks`: the driver keeps sending states."""

    def __init__(self, config, now):
        self.config, self.arm, self.franka, self._now = config, config.arms[0], config.franka, now
        self.driver, self.trajectories, self.poses = Driver(), Topic(), Topic()
        self.controller, self.gripper = self.franka.impedance_controller, None
        self.hands_off, self.busy, self.leading = threading.Lock(), "", False
        self.payload, self._sources = NOTHING, ()
        self._kinematics, self._tool_said, self._tool_seen = ArmKinematics(self.arm), "", ()
        self.state = FrankaState(robot_mode=2, q=list(self.arm.start_joints_rad), O_T_EE=np.eye(4).ravel().tolist())
        self.speaks, self._silent_since = True, float("-inf")

    @property
    def heard(self):
        return self._now() if self.speaks else self._silent_since

    def report(self):
        """Do nothing: no filter receives the report."""

    def problem(self):
        return ""

    def wait_for_mode(self, mode, _seconds):
        self.state.robot_mode = mode
        return ""


class RealSwitches(Driver):
    """A driver that switches like franka_ros: between two controllers the robot is IDLE for a moment, which begins late when
    one call changes both, and a controller that starts forgets a trajectory sent before."""

    says_idle = True

    def __init__(self, stage, arm):
        super().__init__()
        self._stage, self._arm, self.running, self.taken = stage, arm, arm.controller, None

    def switch(self, start=(), stop=()):
        if self.running in stop:
            self.running = None
            self._at(0.004 if start else 0.001, reading.IDLE)
        if start:
            self.running = start[0]
            self._at(0.03, reading.MOVE)

    def _at(self, seconds, mode):
        self._stage.at(seconds, f"mode {mode} at {self._stage.rig.now}", lambda: self._says(mode))

    def _says(self, mode):
        if mode == reading.IDLE and not self.says_idle or self._arm.state.robot_mode == reading.REFLEX:
            return
        if mode == reading.MOVE:
            self.taken = None
        self._arm.state.robot_mode = mode

    def trajectory(self, message):
        self.taken = message.points and message
        self._stage.at(1.0, "arrives", lambda: self._arrive(message))

    def _arrive(self, message):
        if message is self.taken:
            self._arm.state.q = list(message.points[-1].positions)
