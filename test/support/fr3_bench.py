"""The FR3's graph as a person and a policy see it, for the tests in test/rigs."""
from __future__ import annotations

import time

import numpy as np


class Bench:
    """An operator, a stand-in for the policy, and what went to the controller."""

    def __init__(self, graph, source_class):
        import rospy
        from geometry_msgs.msg import PoseStamped

        from hybridvla_core.paths import ROOT
        from hybridvla_core.robots.config import load_robot
        from hybridvla_ros.demos.rigs_fr3 import Fr3Operator

        self.graph, self.targets = graph, []
        self.operator = Fr3Operator()
        self.arm = load_robot(ROOT / "config" / "robots" / "fr3.yaml").arms[0]
        self.source = source_class([self.arm])
        rospy.Subscriber("/hybridvla/safety/arm/target", PoseStamped, self.targets.append, queue_size=50)

    def __getattr__(self, name):
        return getattr(self.operator, name)

    @property
    def measured(self):
        return np.asarray(self.status.arms[0].measured.position)

    @property
    def commanded(self):
        return np.asarray(self.status.arms[0].target.position)

    def go(self, position, opening=1.0):
        """Propose the tool at a position, pointing down."""
        self.source.propose({"arm": (np.asarray(position, dtype=float), np.array([1.0, 0.0, 0.0, 0.0]))}, opening)

    def pursue(self, position, opening, condition, what, timeout=60.0):
        """Propose; propose again when a busy computer made the filter drop it, as a policy does."""
        before = self.status.sequence
        deadline, proposed = time.monotonic() + timeout, -np.inf
        while not (self.status.sequence > before and condition()):
            assert time.monotonic() < deadline, f"{what} did not come; the filter says: {self.status.message}"
            if proposed < 0.0 or not self.state("ACTIVE") and time.monotonic() - proposed > 2.0:
                proposed = time.monotonic()
                self.go(position, opening)
            time.sleep(0.02)

    def arrive(self, position, opening=1.0):
        self.pursue(position, opening, lambda: self.status.arms[0].at_target, "arrival")

    def start(self):
        """Bring the arm to the start pose and activate, until a status shows it."""
        self.begin()
        self.answered(self.activate, True, what="activate")
        self.until(lambda: self.state("HOLDING", "ACTIVE") and np.isfinite(self.commanded).all(), "a status once active")

    def fast(self):
        """Start a long motion."""
        self.start()
        here = self.measured
        self.pursue([0.45, 0.25, 0.30], 1.0, lambda: np.linalg.norm(self.measured - here) > 0.02, "motion")

    def still(self, seconds=0.6):
        """Return how far the arm moves within a while, m."""
        here, far = self.measured, 0.0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            far = max(far, float(np.linalg.norm(self.measured - here)))
            time.sleep(0.02)
        return far

    def bring_back(self):
        """After a robot fault that stopped the filter is over, recover and resume as a person does."""
        self.answered(self.recover, what="recover")
        self.answered(self.resume, what="resume")
