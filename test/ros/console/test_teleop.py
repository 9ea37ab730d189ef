"""SpaceMouse to targets: only while the button is held and the device sends, never far ahead, nothing caught up afterwards."""
from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hybridvla_core.configuration import from_mapping, load_file, read_mapping
from hybridvla_core.contracts import Pose
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.paths import ROOT
from hybridvla_ros.console.teleop import Teleop, TeleopConfig

FILE = ROOT / "config/teleop/spacemouse.yaml"
DOWN = np.array([1.0, 0.0, 0.0, 0.0])
HELD, BOTH, NONE = (1, 0), (1, 1), (0, 0)


class Hand:
    """An operator's hand, and an arm that follows at once unless the test says otherwise."""

    def __init__(self, **changes):
        self.config = from_mapping(TeleopConfig, dict(read_mapping(FILE), **changes), "teleop")
        self.teleop, self.now, self.at, self.follows = Teleop(self.config), 0.0, np.array([0.4, 0.0, 0.3]), True
        self.turned = DOWN
        self.teleop.on_opening(1.0, commanded=False)

    def move(self, linear=(0, 0, 0), angular=(0, 0, 0), buttons=HELD, seconds=1.0, speaking=True):
        """Return the targets of that time, one per period."""
        made = []
        for _ in range(int(round(seconds * self.config.rate_hz))):
            if speaking:
                self.teleop.on_twist(linear, angular, self.now)
                self.teleop.on_buttons(buttons, self.now)
            self.teleop.on_commanded(Pose(self.at, self.turned), self.now)
            step = self.teleop.tick(self.now)
            if step is not None:
                made.append(step)
                if self.follows:
                    self.at, self.turned = step[1].position, step[1].quaternion
            self.now += self.config.period_s
        return made


@pytest.fixture
def hand():
    return Hand()


def test_full_deflection_moves_at_the_configured_speed_along_its_axis(hand):
    made = hand.move(linear=(1.0, 0.0, 0.0))
    assert len(made) == 20 and np.allclose(hand.at, [0.4 + hand.config.linear_m_s, 0.0, 0.3], atol=1e-9)
    assert all(np.allclose(target.quaternion, DOWN) or np.allclose(target.quaternion, -DOWN) for _, target, _ in made)


def test_the_operator_may_stand_anywhere():
    facing = Hand(view_yaw_rad=math.pi)
    facing.move(linear=(1.0, 0.5, 0.0))
    assert facing.at[0] < 0.4 and facing.at[1] < 0.0


def test_rotation_turns_about_the_bases_axes(hand):
    hand.move(angular=(0.0, 0.0, 1.0))
    turned = Rotation.from_quat(hand.turned) * Rotation.from_quat(DOWN).inv()
    assert np.allclose(turned.as_rotvec(), [0.0, 0.0, hand.config.angular_rad_s], atol=1e-9)


@pytest.mark.parametrize("buttons, speaking", [(NONE, True), ((), True), (HELD, False)])
def test_nothing_moves_without_the_button_or_the_device(hand, buttons, speaking):
    assert not hand.move(linear=(1, 0, 0), buttons=buttons, speaking=speaking)
    assert not hand.teleop.deadman(hand.now) and hand.teleop.problem(hand.now)


def test_a_device_that_falls_silent_with_the_button_held_counts_as_released(hand):
    assert hand.move(linear=(1, 0, 0), seconds=0.5)
    made = hand.move(speaking=False, seconds=1.0)
    assert len(made) * hand.config.period_s <= hand.config.input_timeout_s + hand.config.period_s
    assert "is the device connected" in hand.teleop.problem(hand.now)


def test_a_target_runs_ahead_by_a_bound_and_a_blocked_arm_gets_nothing_to_make_up_for(hand):
    hand.follows = False
    made = hand.move(linear=(0, 1, 0), angular=(1, 0, 0), seconds=5.0)
    ahead = [np.linalg.norm(target.position - base.position) for base, target, _ in made]
    turned = [(Rotation.from_quat(t.quaternion) * Rotation.from_quat(b.quaternion).inv()).magnitude() for b, t, _ in made]
    assert max(ahead) == pytest.approx(hand.config.lead_m) and max(turned) == pytest.approx(hand.config.lead_rad)
    hand.move(buttons=NONE, seconds=0.2)
    again = hand.move(seconds=0.1)
    assert np.allclose(again[0][1].position, again[0][0].position), "a new grip starts where the arm is"


def test_a_hand_at_rest_and_what_is_no_number_move_nothing(hand):
    start = hand.at.copy()
    for linear in ((0.07, -0.05, 0.0), (math.nan, 1.0, 0.0)):
        hand.move(linear=linear)
        assert np.allclose(hand.at, start)
    hand.move(linear=(50.0, 0.0, 0.0))
    assert hand.at[0] == pytest.approx(start[0] + hand.config.linear_m_s), "no more than full deflection"


def test_the_gripper_button_opens_and_closes_once_a_press_and_only_while_held(hand):
    openings = [step[2] for buttons in (HELD, BOTH, BOTH, HELD, BOTH) for step in hand.move(buttons=buttons, seconds=0.1)]
    assert openings == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    hand.move(buttons=(0, 1), seconds=0.2)
    assert hand.move(seconds=0.1)[0][2] == 1.0


def test_a_wide_object_in_closed_fingers_is_not_let_go(hand):
    """The gripper is measured 0.7 open and commanded closed: the command stays."""
    hand.teleop.on_opening(0.0, commanded=True)
    hand.teleop.on_opening(0.7, commanded=False)
    assert hand.move(seconds=0.1)[0][2] == 0.0


def test_without_a_commanded_pose_or_a_known_gripper_nothing_moves():
    config = load_file(TeleopConfig, FILE)
    teleop = Teleop(config)
    teleop.on_twist((1, 0, 0), (0, 0, 0), 0.0)
    teleop.on_buttons(HELD, 0.0)
    assert teleop.tick(0.0) is None and "activate" in teleop.problem(0.0)
    teleop.on_commanded(Pose(np.full(3, math.nan), DOWN), 0.0)
    assert teleop.tick(0.0) is None
    teleop.on_commanded(Pose(np.array([0.4, 0.0, 0.3]), DOWN), 0.0)
    assert teleop.tick(0.0) is None and "gripper's opening is unknown" in teleop.problem(0.0)
    teleop.on_opening(0.3, commanded=False)
    assert teleop.tick(0.0)[2] == pytest.approx(0.3) and teleop.problem(0.0) == ""


def test_a_commanded_pose_from_before_the_filter_fell_silent_or_inactive_is_not_a_start(hand):
    assert hand.move(seconds=0.2)
    hand.now += 1.0
    hand.teleop.on_twist((1, 0, 0), (0, 0, 0), hand.now)
    hand.teleop.on_buttons(HELD, hand.now)
    assert hand.teleop.tick(hand.now) is None, "the arm may be elsewhere by now"
    hand.teleop.on_commanded(Pose(hand.at, DOWN), hand.now)
    assert hand.teleop.tick(hand.now) is not None
    hand.teleop.on_commanded(Pose(np.full(3, math.nan), DOWN), hand.now)
    assert hand.teleop.tick(hand.now) is None


@pytest.mark.parametrize("changes, words", [
    ({"gripper_button": 0}, "two different indices"), ({"linear_m_s": 3.0}, "linear_m_s"), ({"rate_hz": 0.0}, "rate_hz"),
    ({"twist_topic": ""}, "must be named"), ({"speed": 1.0}, "unknown key")])
def test_a_configuration_that_cannot_be_meant_is_refused(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        from_mapping(TeleopConfig, dict(read_mapping(FILE), **changes), "teleop")
