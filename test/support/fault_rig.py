"""The rig of the filter's tests for fault tests, with a judge that shares nothing with the filter."""
from __future__ import annotations

import numpy as np
from checker import Checker
from safety_rig import ROBOTS, Rig

from hybridvla_core.contracts import Pose
from hybridvla_core.geometry.rotations import to_quaternion
from hybridvla_core.safety.status import State

FAR = {1: [[0.5, 0.3, 0.2]], 2: [[0.45, 0.25, 0.35], [0.45, -0.25, 0.35]]}     # takes more than a second to reach


class FaultRig(Rig):
    """A rig whose every command is judged. `begin()` leaves the arms in the middle of a motion."""

    def __init__(self, robot="sim_fr3", **options):
        super().__init__(robot, **options)
        self.checker = Checker(ROBOTS / f"{robot}.yaml")
        self.errored = ()
        self.outside = False        # stopped outside a limit

    def tick(self, count=1):
        for _ in range(count):
            super().tick()
            if self.errored and any(command.publish for command in self.output.arms):
                continue            # one arm of two: the judge knows only motions of both, so the test checks this itself
            counters = self.filter.counters
            self.checker.see(self.output.arms, counters["reseeds"], counters["reposes"],
                             relaxed=self.outside or self.filter.state == State.RECOVERING)
        return self.output

    def far(self):
        return FAR[len(self.config.arms)]

    def begin(self, ticks=100):
        """Start, pass the ramp and set off to a far target; return the rig."""
        self.start()
        self.tick(220)
        self.set_off()
        self.tick(ticks)
        assert ticks < 50 or self.speed() > 0.02
        return self

    def set_off(self, **changes):
        here = [command.pose for command in self.output.arms]
        quaternions = [to_quaternion(matrix) for matrix in self.filter.commanded_rotations]
        way = np.array(self.far()) - [pose.position for pose in here]
        answer = self.propose(np.array([pose.position for pose in here]) + way, quaternions, **changes)
        assert answer.accepted, answer.reason

    def speed(self):
        """Return the speed of the fastest command, m/s."""
        return max(float(np.linalg.norm(self.commanded(i)[-1] - self.commanded(i)[-2])) / self.config.dt
                   for i in range(len(self.config.arms)))

    def assert_held(self, reason=None, state=State.HOLDING, within=120):
        """Assert that the arms come to rest within the braking time and stay there, for `reason`, without breaking a limit."""
        self.tick(within)
        assert self.filter.state == state, (self.filter.state, self.output.status.message)
        if reason is not None:
            assert self.output.status.reasons & reason, self.output.status.message
            assert self.output.status.message
        rest = [command.pose.position for command in self.output.arms]
        self.tick(60)
        assert self.filter.state == state
        for command, position in zip(self.output.arms, rest):
            np.testing.assert_array_equal(command.pose.position, position)
        self.assert_no_violation()

    def assert_no_violation(self):
        assert not self.checker.violations, self.checker.violations[:5]
        assert self.checker.ticks > 100

    def assert_goes_on(self):
        """Assert that a new proposal moves the arms again."""
        self.tick(30)
        self.set_off()
        self.tick(80)
        assert self.filter.state == State.ACTIVE and self.speed() > 0.005, self.output.status.message
        self.assert_no_violation()

    def driver_pose(self, name, off=(0.0, 0.0, 0.0)):
        pose = self.measured_pose(name)
        return Pose(pose.position + np.array(off), pose.quaternion)
