"""Arms that are led: what waits, what ends a way and with which words, and what is forgiven while they are drawn back."""
from types import SimpleNamespace

import numpy as np
import pytest

from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.execution import homing as homing_file
from hybridvla_core.safety.execution import leading as leading_file
from hybridvla_core.safety.execution.execution import SETTLED
from hybridvla_core.safety.execution.homing import STUCK_TICKS, THERE_RAD, Homing
from hybridvla_core.safety.execution.leading import ON_THE_WAY, Leading, Led
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.status import Reason

pytestmark = pytest.mark.robot_computer
FR3 = load_robot(ROOT / "config" / "robots" / "sim_fr3.yaml")
START = np.array([FR3.arms[0].start_joints_rad])


class Told:
    """A motion that records the calls it receives."""

    def __init__(self):
        self.asked, self.relaxed, self.led, self.forgiven, self.at_rest = [], False, False, None, True
        self.joints = START.copy()
        self.positions, self.rotations = np.zeros((1, 3)), np.eye(3)[None]
        self.moves = True

    def step(self, goal):
        self.asked.append(("rest", goal))
        return self.moves

    def step_joints(self, goal, scale):
        self.asked.append(("joints", goal, scale, self.relaxed, self.forgiven))
        return self.moves

    def lead(self, led):
        self.led = led

    def forgive(self, joints):
        self.forgiven = joints


class Way:
    """A way that ends when the test says so."""

    blocked = ""

    def __init__(self, *_):
        self.finished = self.stuck = False
        self.scales = []

    def step(self, scale):
        self.scales.append(scale)
        return True


@pytest.fixture
def stage(monkeypatch):
    motion = Told()
    relaxed = []
    arms = SimpleNamespace(joints=START + 0.1, limits=SimpleNamespace(relax=relaxed.append))
    guard = SimpleNamespace(held=False, detail="the arm is held", joints=lambda: START + 0.2)
    monkeypatch.setattr(leading_file, "Reentry", Way)
    monkeypatch.setattr(leading_file, "Homing", Way)
    stage = SimpleNamespace(motion=motion, guard=guard, relaxed=relaxed, arms=arms, measured="", near=1.0)

    def worst_violation(_motion, joints=None):
        assert joints is None or joints is arms.joints
        return "joint_7 is outside" if joints is None else stage.measured
    monkeypatch.setattr(leading_file, "worst_violation", worst_violation)
    monkeypatch.setattr(Way, "blocked", "")

    def measured_near(end, times=1.0):
        assert end.positions is motion.positions and end.rotations is motion.rotations
        return stage.near <= times
    stage.leading = Leading(FR3, motion, arms, SimpleNamespace(guard=guard, measured_near=measured_near,
                                                               short=lambda end: "arm: it stands away"))
    return stage


def test_a_way_back_is_made_at_its_scale_until_it_is_finished_or_stuck(stage):
    stage.leading.reenter()
    assert len(stage.relaxed) == 1 and stage.relaxed[0] is stage.arms.joints, "what the arms break now is forgiven them"
    way = stage.leading._reentry
    assert stage.leading.step(Reason.NONE, "", False) == Led(True, False, Reason.OUTSIDE_AT_START, "joint_7 is outside")
    assert way.scales == [FR3.reenter_scale]
    way.stuck = True
    assert stage.leading.step(Reason.NONE, "", False) == Led(
        True, True, Reason.OUTSIDE_AT_START, "no way back inside was found, joint_7 is outside; move the arm by hand")
    way.finished = True
    assert stage.leading.step(Reason.NONE, "", False) == Led(True, True, Reason.NONE, "the arms are inside their limits")
    stage.motion.relaxed = stage.motion.led = True
    stage.leading.end()
    assert stage.relaxed[1:] == [None] and stage.motion.relaxed is False and stage.motion.led is False
    assert stage.leading.step(Reason.NONE, "", False) == Led(True, True, Reason.NONE, "")


def test_a_way_to_the_start_is_made_until_it_is_finished_or_stuck(stage):
    assert stage.leading.go_to_start() == "" and stage.motion.led is True and stage.leading.homed is False
    way = stage.leading._homing
    assert stage.leading.step(Reason.NONE, "", False) == Led(True, False, Reason.NONE, ON_THE_WAY)
    assert way.scales == [FR3.reenter_scale] and stage.leading.homed is False
    way.stuck = True
    assert stage.leading.step(Reason.NONE, "", False) == Led(True, True, Reason.COLLISION,
                                                             "something came in the way to the start joints")
    way.finished = True
    assert stage.leading.step(Reason.NONE, "", False) == Led(True, True, Reason.NONE, "") and stage.leading.homed is True
    stage.leading.end()
    assert stage.leading.homed is True, "it was gone to its end"
    assert stage.leading.go_to_start() == "" and stage.leading.homed is False


SETTLE_TICKS = round(FR3.at_target.settle_s / FR3.dt)


def test_a_way_back_is_gone_when_the_measured_arms_are_inside_or_do_not_come_for_so_long(stage):
    stage.measured = "the measured joint_7 is outside"
    waits = Led(True, False, Reason.OUTSIDE_AT_START, stage.measured)
    given_up = Led(True, True, Reason.OUTSIDE_AT_START, f"the way back was gone, and the arm did not follow: {stage.measured}; "
                                                        "free it, or tell the robot its payload")
    stage.leading.reenter()
    way = stage.leading._reentry
    way.finished = way.stuck = True
    for _ in range(SETTLE_TICKS):
        assert stage.leading.step(Reason.NONE, "", False) == waits
    assert stage.leading.step(Reason.NONE, "", False) == given_up
    way.finished = way.stuck = False
    stage.leading.step(Reason.NONE, "", False)
    way.finished = True
    assert stage.leading.step(Reason.NONE, "", False) == waits, "at its end anew"
    stage.measured = ""
    assert stage.leading.step(Reason.NONE, "", False) == Led(True, True, Reason.NONE, "the arms are inside their limits")


@pytest.mark.parametrize("near, homed", [(1.0, True), (SETTLED, True), (1.01 * SETTLED, False)])
def test_a_way_to_the_start_is_gone_when_the_measured_tools_are_near_or_settled_less_near(stage, near, homed):
    stage.near = near
    stage.leading.go_to_start()
    stage.leading._homing.finished = True
    for _ in range(SETTLE_TICKS if near > 1.0 else 0):
        assert stage.leading.step(Reason.NONE, "", False) == Led(True, False, Reason.NONE, ON_THE_WAY)
        assert stage.leading.homed is False
    assert stage.leading.step(Reason.NONE, "", False) == (
        Led(True, True, Reason.NONE, "") if homed else Led(True, True, Reason.LEASH, "arm: it stands away"))
    assert stage.leading.homed is homed


def test_a_way_that_is_not_free_is_not_begun(stage, monkeypatch):
    monkeypatch.setattr(Way, "blocked", "the post is in the way")
    assert stage.leading.go_to_start() == "the post is in the way" and stage.motion.led is False
    assert stage.leading.step(Reason.NONE, "", False).ended is True, "there is none"


WAITED_FOR = [Reason.JOINT_STATE, Reason.DEADMAN, Reason.CLOCK_JUMP, Reason.MEASURED_LIMIT, Reason.OPERATOR, Reason.TCP_MISMATCH]


@pytest.mark.parametrize("flag", [*WAITED_FOR, Reason.HEARTBEAT_LOST, Reason.TICK_OVERRUN])
@pytest.mark.parametrize("back", [True, False])
def test_what_is_waited_for_brings_the_arms_to_rest_and_is_shown(stage, flag, back):
    stage.leading.reenter() if back else stage.leading.go_to_start()
    shown = Reason.OUTSIDE_AT_START if back else Reason.NONE
    led = stage.leading.step(flag | Reason.HEARTBEAT_LOST, "because", False)
    if flag in WAITED_FOR:
        assert led == Led(True, False, shown | flag, "because") and stage.motion.asked == [("rest", None)]
    else:
        assert led.reasons == shown and not stage.motion.asked
    stage.motion.moves = False
    assert stage.leading.step(Reason.NONE, "", True) == Led(False, False, shown, ""), "the operator ends it"


@pytest.mark.parametrize("flag", WAITED_FOR)
def test_an_arm_that_is_held_is_drawn_back_also_while_something_is_waited_for(stage, flag):
    stage.leading.go_to_start()
    stage.guard.held = True
    assert stage.leading.step(flag | Reason.HEARTBEAT_LOST, "because", False) == Led(True, False, flag | Reason.LEASH, "because")
    assert stage.leading.step(flag, "", False).detail == "the arm is held"
    assert stage.leading.step(Reason.HEARTBEAT_LOST, "because", False).detail == "the arm is held", "that is not waited for"
    assert [asked[0] for asked in stage.motion.asked] == ["joints"] * 3
    assert stage.leading.step(flag, "because", True) == Led(True, False, flag, "because"), "the operator ends it"
    assert stage.motion.asked[-1] == ("rest", None)


@pytest.mark.parametrize("back", [True, False])
def test_an_arm_that_is_held_is_drawn_back_to_where_it_is_and_nothing_stays_forgiven(stage, back):
    stage.leading.reenter() if back else stage.leading.go_to_start()
    stage.guard.held = True
    shown = Reason.OUTSIDE_AT_START if back else Reason.NONE
    assert stage.leading.step(Reason.NONE, "", False) == Led(True, False, shown | Reason.LEASH, "the arm is held")
    (kind, goal, scale, relaxed, forgiven), = stage.motion.asked
    assert kind == "joints" and scale == FR3.reenter_scale and relaxed is True and forgiven is stage.arms.joints
    np.testing.assert_array_equal(goal, START + 0.2)
    assert stage.motion.relaxed is back and stage.motion.forgiven is None
    stage.motion.moves = False
    assert stage.leading.step(Reason.NONE, "", False).moved is False


class Legs:
    """Scripted ways to the start."""

    legs, hindrance = [], ""

    def __init__(self, *_):
        pass

    def choose(self, here):
        return list(self.legs), self.hindrance


def test_homing_goes_leg_by_leg_ends_at_rest_and_is_stuck_after_a_while(monkeypatch):
    monkeypatch.setattr(homing_file, "WayToStart", Legs)
    monkeypatch.setattr(Legs, "legs", [START + 0.3, START + 0.1])
    motion = Told()
    homing = Homing(FR3, motion, START)
    assert homing.blocked == "" and homing.finished is False and homing.stuck is False
    motion.at_rest = False
    assert homing.step(0.3) is True and np.array_equal(motion.asked[-1][1], START + 0.3) and motion.asked[-1][2] == 0.3
    motion.joints = START + 0.3 + 1.1 * THERE_RAD
    homing.step(0.3)
    assert np.array_equal(motion.asked[-1][1], START + 0.3)
    motion.joints = START + 0.3 - 0.9 * THERE_RAD
    homing.step(0.3)
    assert np.array_equal(motion.asked[-1][1], START + 0.1), "the next leg"
    motion.at_rest = True
    for _ in range(STUCK_TICKS - 1):
        homing.step(0.3)
    assert homing.stuck is False
    motion.at_rest = False
    homing.step(0.3)
    motion.at_rest = True
    for _ in range(STUCK_TICKS):
        assert homing.stuck is False
        homing.step(0.3)
    assert homing.stuck is True and homing.finished is False
    motion.joints, motion.at_rest = START + 0.1, False
    assert homing.step(0.3) is True and motion.asked[-1] == ("rest", None) and homing.finished is False
    motion.at_rest, motion.moves = True, False
    assert homing.step(0.3) is False and homing.finished is True
    monkeypatch.setattr(Legs, "hindrance", "a post")
    assert Homing(FR3, motion, START).blocked == (
        "the way to the start joints is not free: a post; move the arms by hand or by the policy first")


def test_homing_that_never_gets_going_is_stuck_after_that_while(monkeypatch):
    monkeypatch.setattr(homing_file, "WayToStart", Legs)
    monkeypatch.setattr(Legs, "legs", [START + 0.3])
    homing = Homing(FR3, Told(), START)
    for _ in range(STUCK_TICKS):
        assert homing.stuck is False
        homing.step(0.3)
    assert homing.stuck is True


def test_at_the_start_homing_is_finished_at_once():
    homing = Homing(FR3, Motion(FR3), START)
    assert homing.step(1.0) is True and homing.finished is True and homing.stuck is False
