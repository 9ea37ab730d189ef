"""Services of an FR3 besides following the filter, without a graph: who may end them, and when an arm becomes stiff."""
from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import rospy
from franka_bench import Arm, RealSwitches
from stage import Stage

from hybridvla_core.contracts import GripperState
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.status import State
from hybridvla_ros.adapters.franka import arm as arm_module
from hybridvla_ros.adapters.franka import reading, services, start_up, takeover
from hybridvla_ros.adapters.franka.arm import NOTHING, FrankaArm
from hybridvla_ros.adapters.franka.services import ArmServices
from hybridvla_ros.adapters.franka.takeover import Takeover
from hybridvla_ros.filter_handle import MEANWHILE, Deactivated
from hybridvla_ros.runtime.workers import FAULTS

# The way to the start and a new payload -----------------------------------------------------------------------------


@pytest.fixture
def lab(monkeypatch):
    """Return a stage with an FR3 away from its start, and its services."""
    stage = Stage(monkeypatch, "fr3", modules=(services, arm_module))
    arm = Arm(stage.rig.config, lambda: stage.rig.now)
    arm.state.q = (np.array(arm.arm.start_joints_rad) + [0.3, 0, 0, 0, 0, 0, 0]).tolist()
    stage.arm = arm
    stage.robot = ArmServices(arm, SimpleNamespace(done=True, says=""), SimpleNamespace(fault=""), stage.handle)
    stage.node.adapter = SimpleNamespace(has_way_to_start=True, go_to_start=stage.robot.go_to_start)
    return stage


class SlowGripper:
    """A gripper that takes two seconds to open."""

    width, message, state = 0.0, "", GripperState.MOVING

    def __init__(self, stage):
        self._stage = stage

    def command(self, opening):
        assert opening == 1.0

    def wait(self, _seconds):
        self._stage.sleep(2.0)
        return True


def sent(stage):
    """Return the number of points of each sent trajectory; an empty one stops the arm."""
    return [len(message.points) for message in stage.arm.trajectories.sent]


@pytest.mark.parametrize("end", [("activate", False), ("stop",)])
def test_what_ends_motion_ends_the_way_to_the_start(lab, end):
    lab.at(1.0, "end", lambda: lab.ask(*end))
    begin = lab.rig.now
    done, message = lab.ask("go_to_start")
    assert not done and MEANWHILE in message and lab.answers["end"][0]
    assert len(sent(lab)) == 2 and sent(lab)[0] > 0 and sent(lab)[1] == 0
    assert lab.rig.now - begin < 1.2, "at the next look"


def stop_and_resume(stage):
    assert stage.ask("stop")[0] and stage.ask("resume")[0] and stage.state == State.INACTIVE


@pytest.mark.parametrize("meanwhile, said", [
    (lambda stage: setattr(stage, "pressed", False), "deadman"), (lambda stage: stage.ask("activate", False), MEANWHILE),
    (stop_and_resume, MEANWHILE)])
def test_while_the_gripper_opens_the_way_to_the_start_may_be_called_off(lab, meanwhile, said):
    lab.arm.gripper = SlowGripper(lab)
    lab.at(1.0, "meanwhile", lambda: meanwhile(lab))
    done, message = lab.ask("go_to_start")
    assert not done and said in message
    assert sent(lab) == [] and "switch" not in str(lab.arm.driver.calls), "neither controller nor arm"


def test_while_controllers_change_the_way_to_the_start_may_be_called_off(lab):
    lab.arm.driver.do["switch"] = lambda: lab.ask("activate", False)
    done, message = lab.ask("go_to_start")
    assert not done and MEANWHILE in message and not any(sent(lab))
    assert lab.arm.driver.calls[-1] == ("switch", {"start": [lab.arm.controller]}), "the controller comes back"


@pytest.fixture
def switched(lab):
    """Return the lab with a robot whose mode follows its controllers."""
    arm = lab.arm
    arm.driver = RealSwitches(lab, arm)
    arm.trajectories.publish = lambda message: (arm.trajectories.sent.append(message), arm.driver.trajectory(message))
    arm.wait_for_mode = lambda mode, seconds: FrankaArm.wait_for_mode(arm, mode, seconds)
    return lab


def test_the_way_to_the_start_begins_when_its_controller_has_really_begun(switched):
    assert switched.ask("go_to_start") == (True, "at the start pose")
    assert sent(switched) == [sent(switched)[0]], "one trajectory, and it was taken"
    assert switched.arm.driver.running == switched.arm.controller and switched.arm.state.robot_mode == reading.MOVE


def test_a_robot_that_never_says_idle_is_named_in_time_and_gets_its_controller_back(switched):
    switched.arm.driver.says_idle, begin = False, switched.rig.now
    done, message = switched.ask("go_to_start")
    assert not done and "robot mode is MOVE and not IDLE after 3 s" in message and sent(switched) == []
    assert switched.arm.driver.running == switched.arm.controller and switched.rig.now - begin < 7.0


def test_a_reflex_on_the_way_to_the_start_is_named_at_once(switched):
    switched.at(0.5, "reflex", lambda: setattr(switched.arm.state, "robot_mode", reading.REFLEX))
    begin = switched.rig.now
    done, message = switched.ask("go_to_start")
    assert not done and "robot mode REFLEX" in message and switched.rig.now - begin < 2.5
    assert switched.arm.driver.running == switched.arm.controller


def test_while_another_holds_the_arm_the_way_to_the_start_may_be_called_off(lab):
    class Taken:
        def acquire(self, blocking):
            lab.sleep(0.5)
            return True

        def release(self):
            """Do nothing: nobody waits."""
    lab.arm.hands_off = Taken()
    lab.at(0.2, "end", lambda: lab.ask("activate", False))
    done, message = lab.ask("go_to_start")
    assert not done and MEANWHILE in message and sent(lab) == []
    assert lab.arm.driver.calls == []


def payload(stage):
    answer = stage.services["/hybridvla/robot/set_payload"](SimpleNamespace(mass_kg=0.5, center_m=(0.0, 0.0, 0.1)))
    return answer.success, answer.message


def test_an_active_filter_goes_on_after_a_new_payload(lab):
    assert lab.ask("activate", True)[0]
    assert payload(lab)[0] and lab.state == State.HOLDING


def test_a_payload_that_the_robot_is_not_ready_for_leaves_an_active_filter_active(lab):
    assert lab.ask("activate", True)[0]
    lab.arm.problem = lambda: "the robot's user stop is pressed"
    assert payload(lab) == (False, "the robot's user stop is pressed") and lab.state == State.HOLDING


@pytest.mark.parametrize("when", ["while it changes", "before it"])
def test_a_new_payload_does_not_activate_what_somebody_deactivated(lab, when):
    assert lab.ask("activate", True)[0]
    if when == "before it":          # the arm is still braking when the payload comes
        lab.rig.propose([0.45, 0.15, 0.4])
        lab.sleep(0.6)
        assert lab.ask("activate", False) == (True, "braking, then inactive")
    else:
        lab.arm.driver.do["set_load"] = lambda: lab.ask("activate", False)
    done, message = payload(lab)
    assert lab.state == State.INACTIVE and done == (when == "before it"), message
    lab.sleep(1.0)
    assert lab.state == State.INACTIVE


def test_a_payload_is_told_again_when_start_up_runs_again(lab):
    loads, arm = [], lab.arm
    arm.driver.set_load = lambda mass, center: loads.append((mass, center))
    steps = dict(start_up.StartUp(arm, foreign=lambda: "", dry_run=False).steps())
    assert steps["load"]() == "" and payload(lab)[0] and steps["load"]() == ""
    tool = arm.arm.tool.mass_kg
    assert loads[0][0] == pytest.approx(tool) and loads[1] == loads[2]
    assert loads[2][0] == pytest.approx(tool + 0.5)
    np.testing.assert_allclose(loads[2][1], (tool * np.array(arm.franka.tool_center_m) + [0.0, 0.0, 0.05]) / (tool + 0.5))


def test_a_payload_that_the_robot_refuses_is_not_kept(lab):
    def refuse(*_load):
        raise HybridVLAError("refused")
    lab.arm.driver.set_load = refuse
    assert payload(lab) == (False, "refused") and lab.arm.payload == NOTHING


@pytest.mark.parametrize("mass, center", [(4.0, (0.0, 0.0, 0.1)), (0.5, (0.0, 0.0, 100.0)), (0.5, (float("nan"), 0.0, 0.0))])
def test_a_payload_that_no_hand_holds_is_refused(lab, mass, center):
    answer = lab.services["/hybridvla/robot/set_payload"](SimpleNamespace(mass_kg=mass, center_m=center))
    assert not answer.success and "within 0.5 m of the flange" in answer.message and lab.arm.driver.calls == []


# A person's hand ----------------------------------------------------------------------------------------------------


class Free:
    """A filter that never interferes, unless `forbidden` says so."""

    forbidden = ""

    def deactivate(self):
        return Deactivated("", 1, False)

    def forbids(self, _since):
        return self.forbidden


@pytest.fixture
def hand(monkeypatch):
    """Yield an arm that a hand leads, in real time: `hand.takeover`, `hand.arm`, `hand.safety`."""
    monkeypatch.setattr(rospy.Time, "now", staticmethod(lambda: rospy.Time(1)))
    monkeypatch.setattr(takeover, "SETTLE_S", 0.3)
    arm, safety = Arm(load_robot(ROOT / "config" / "robots" / "fr3.yaml"), time.monotonic), Free()
    person = SimpleNamespace(arm=arm, safety=safety, takeover=Takeover(arm, safety, lambda what: arm.alone(what, lambda: "")))
    assert "soft" in person.takeover.take() and arm.driver.calls == ["soft"]
    until(lambda: arm.leading and arm.poses.sent)
    arm.driver.calls.clear()
    yield person
    person.takeover._led.clear()
    until(lambda: not arm.leading)


def until(condition):
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_arm_whose_states_come_becomes_stiff(hand):
    assert "holds where it is" in hand.takeover.give_back()
    assert hand.arm.driver.calls == ["stiff"] and not hand.arm.leading


def test_an_arm_whose_place_is_not_known_stays_soft_until_it_is(hand):
    hand.arm.speaks = False
    time.sleep(0.1)
    count = len(hand.arm.poses.sent)
    time.sleep(0.1)
    assert len(hand.arm.poses.sent) == count, "an old pose is not said again"
    with pytest.raises(HybridVLAError, match="nothing on .* stays soft"):
        hand.takeover.give_back()
    assert hand.arm.driver.calls == [] and hand.arm.leading
    hand.arm.speaks = True
    assert hand.takeover.give_back() and hand.arm.driver.calls == ["stiff"]


def test_an_arm_that_falls_silent_while_its_turn_is_waited_for_stays_soft(hand):
    hand.arm.hands_off.acquire()
    waiting = threading.Timer(0.2, lambda: (setattr(hand.arm, "speaks", False), hand.arm.hands_off.release()))
    waiting.start()
    with pytest.raises(HybridVLAError, match="stays soft"):
        hand.takeover.give_back()
    assert hand.arm.driver.calls == []


def test_an_arm_that_falls_silent_while_it_becomes_stiff_is_made_soft_again(hand):
    hand.arm.driver.do["stiff"] = lambda: setattr(hand.arm, "speaks", False)
    with pytest.raises(HybridVLAError, match="stays soft"):
        hand.takeover.give_back()
    assert hand.arm.driver.calls == ["stiff", "soft"] and hand.arm.leading


def test_an_arm_that_nothing_follows_any_more_stays_soft(hand):
    hand.arm.state.O_T_EE = None            # the following thread fails on it
    until(lambda: not hand.takeover._followed)
    for call in (hand.takeover.give_back, hand.takeover.take):
        with pytest.raises(HybridVLAError, match="does not follow the arm any more"):
            call()
    assert hand.arm.driver.calls == []
    until(lambda: FAULTS.problem)
    FAULTS.clear("following the hand that leads the arm")


def test_a_stop_while_the_arms_turn_is_waited_for_leaves_it_stiff():
    arm, safety = Arm(load_robot(ROOT / "config" / "robots" / "fr3.yaml"), time.monotonic), Free()
    person = Takeover(arm, safety, lambda what: arm.alone(what, lambda: ""))
    arm.hands_off.acquire()
    threading.Timer(0.2, lambda: (setattr(safety, "forbidden", MEANWHILE), arm.hands_off.release())).start()
    with pytest.raises(HybridVLAError, match="stopped meanwhile"):
        person.take()
    assert arm.driver.calls == [] and not arm.leading
