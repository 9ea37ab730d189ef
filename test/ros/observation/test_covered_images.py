"""A camera clock ahead of the arms' clock: the newest images covered by states are used, at the full rate, and it is reported."""
from __future__ import annotations

import numpy as np
import pytest

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import ArmState, Pose
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.proposing.proposer import Proposer
from hybridvla_ros.observation.camera_sync import CameraSync
from hybridvla_ros.observation.covered import CoveredImages

BEGIN, SECONDS, JOINTS_S = 1000.0, 3.0, 0.01
POSE = Pose(np.array([0.4, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))


class Rig:
    """A camera and an arm with realistic message times, and a loop that checks every 2 ms."""

    def __init__(self, ahead=0.0, behind=0.0, hz=30.0):
        self.now = BEGIN
        config = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
        self.proposer = Proposer(None, config, epoch=1, clock=lambda: self.now, monotonic=lambda: self.now)
        self.sync = CameraSync(["front"], config.max_camera_spread_s, config.max_observation_age_s)
        self.covered = CoveredImages(self.sync, self.proposer)
        self.ahead, self.behind, self.period = ahead, behind, 1.0 / hz
        self.used, self.remarks = [], set()

    def run(self, seconds=SECONDS):
        image_at, joints_at, end = self.now, self.now, self.now + seconds
        while self.now < end:
            if self.now >= image_at:
                image_at += self.period
                self.sync.add("front", int((self.now + self.ahead) * 1e9), self.now, arrival_ns=int(self.now * 1e9))
            if self.now >= joints_at:
                joints_at += JOINTS_S
                stamp = self.now - self.behind
                self.proposer.on_arm_state(ArmState("arm", ("a",), np.zeros(1), pose=POSE, gripper=1.0, stamp=stamp), stamp)
            newest, _ = self.sync.latest(self.now)
            found = self.covered.choose(newest, self.now) if newest is not None else None
            if found is not None and (not self.used or found.stamp_ns > self.used[-1][0]):
                self.used.append((found.stamp_ns, found.messages["front"], self.now))
                assert found.stamp_ns * 1e-9 <= self.proposer.covered_until + 1e-6
            self.remarks.add(self.covered.remark)
            self.now += 0.002
        return self


@pytest.mark.parametrize("hz", [10.0, 30.0, 60.0])
@pytest.mark.parametrize("ahead", [0.0, 0.015, 0.03, 0.06, 0.15, 0.2, 0.4])
def test_images_are_used_once_states_reach_them_whatever_the_clocks_say(ahead, hz):
    rig = Rig(ahead=ahead, hz=hz).run()
    # Below 0.04 s, the loop may still wait for one image when the next overtakes it.
    assert len(rig.used) >= (0.9 if ahead > 0.04 else 0.6) * (SECONDS - ahead) * hz - 2
    for _, taken, used in rig.used[1:]:
        assert ahead - 0.001 <= used - taken <= ahead + 0.05
    said = [remark for remark in rig.remarks if remark]
    assert bool(said) is (ahead > 0.02)
    assert all(f"camera front: its stamps are {ahead:.3f} s ahead of this computer's clock" in remark for remark in said)


@pytest.mark.parametrize("behind", [0.06, 0.2])
def test_a_robot_whose_clock_is_behind_is_named_as_such(behind):
    rig = Rig(behind=behind).run()
    assert len(rig.used) > 0.8 * SECONDS * 30.0
    assert any("the arms' states are" in remark and "behind the images" in remark for remark in rig.remarks)


def test_the_sentence_ends_when_the_clock_is_set_right():
    rig = Rig(ahead=0.2).run()
    assert rig.covered.remark
    rig.ahead = 0.0
    rig.run(1.0)
    assert rig.covered.remark == ""


def looks(rig, seconds=1.0):
    """Send images but no arm states; return what was chosen, and the final problem."""
    end, chosen = rig.now + seconds, []
    while rig.now < end:
        rig.now += rig.period
        rig.sync.add("front", int(rig.now * 1e9), rig.now, arrival_ns=int(rig.now * 1e9))
        newest, _ = rig.sync.latest(rig.now)
        chosen.append(rig.covered.choose(newest, rig.now))
    return chosen, rig.covered.problem


def test_an_arm_of_which_nothing_is_heard_is_named_as_such():
    chosen, problem = looks(Rig())
    assert not any(chosen) and problem.startswith("not every arm has said where it is; do the drivers run")


def test_joint_states_without_a_time_are_named_as_such():
    rig = Rig()
    rig.proposer.on_arm_state(ArmState("arm", ("a",), np.zeros(1), pose=POSE, gripper=1.0, stamp=0.0), 0.0)
    chosen, problem = looks(rig)
    assert not any(chosen) and "carry no time" in problem and "stamp" in problem


def test_where_the_arms_fell_silent_older_images_end_and_nothing_is_predicted():
    rig = Rig().run(1.0)
    assert not rig.covered.problem
    chosen, problem = looks(rig)
    assert chosen[-1] is None and "nothing is predicted" in problem and "the arms' drivers run" in problem
    rig.run(0.2)
    assert not rig.covered.problem and not rig.covered.remark
