"""Services of an FR3 besides following the filter, without a graph: who may end them, and when they are refused."""
from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from franka_bench import Arm, RealSwitches
from stage import Stage

from hybridvla_core.contracts import GripperState
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.safety.status import State
from hybridvla_ros.adapters.franka import arm as arm_module
from hybridvla_ros.adapters.franka import reading, services, start_up
from hybridvla_ros.adapters.franka.arm import NOTHING, FrankaArm
from hybridvla_ros.adapters.franka.services import ArmServices
from hybridvla_ros.filter_handle import MEANWHILE

# The way to the start and a new payload -----------------------------------------------------------------------------


@pytest.fixture
def lab_with(monkeypatch):
    """Return a function: a stage with an FR3 away from its start, and its services. keys: as of `safety_rig.Rig`."""
    def make(**keys):
        stage = Stage(monkeypatch, "fr3", modules=(services, arm_module), **keys)
        arm = Arm(stage.rig.config, lambda: stage.rig.now)
        arm.state.q = (np.array(arm.arm.start_joints_rad) + [0.3, 0, 0, 0, 0, 0, 0]).tolist()
        stage.arm = arm
        stage.robot = ArmServices(arm, SimpleNamespace(done=True, says=""), SimpleNamespace(fault=""), stage.handle)
        stage.node.adapter = SimpleNamespace(has_way_to_start=True, go_to_start=stage.robot.go_to_start)
        return stage
    return make


@pytest.fixture
def lab(lab_with):
    return lab_with()


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


def ask(stage, service, **request):
    answer = stage.services[f"/hybridvla/robot/{service}"](SimpleNamespace(**request))
    return answer.success, answer.message


def payload(stage):
    return ask(stage, "set_payload", mass_kg=0.5, center_m=(0.0, 0.0, 0.1))


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


# What is refused while the filter moves the arm, in a dry run, and at the joint door ----------------------------------


@pytest.mark.parametrize("state", [State.HOLDING, State.ACTIVE])
def test_while_the_filter_commands_the_arm_there_is_nothing_to_recover_from(lab, state):
    assert lab.ask("activate", True)[0]
    if state == State.ACTIVE:
        lab.rig.propose([0.45, 0.2, 0.4])
        lab.sleep(0.6)
    assert lab.state == state
    assert ask(lab, "recover") == (False, f"the filter is {state.name}: there is nothing to recover from")
    assert lab.arm.driver.calls == [] and lab.state == state, "the controller goes on under the filter"


def test_a_recovery_stops_the_controllers_first_and_then_starts_ours_again(lab):
    assert lab.ask("activate", True)[0] and lab.ask("stop")[0]
    done, message = ask(lab, "recover")
    assert done and message.endswith("call resume") and lab.state == State.STOPPED
    franka = lab.arm.franka
    assert lab.arm.driver.calls == [("switch", {"stop": [franka.impedance_controller, franka.trajectory_controller]}), "recover",
                                    ("switch", {"start": [franka.impedance_controller]})]


@pytest.mark.parametrize("service, request_", [
    ("recover", {}), ("set_payload", {"mass_kg": 0.5, "center_m": (0.0, 0.0, 0.1)})])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_dry_run_changes_nothing_at_the_robot(lab_with, service, request_, stopped):
    lab = lab_with(dry_run=True)
    assert lab.ask("activate", True)[0] and (not stopped or lab.ask("stop")[0])
    done, message = ask(lab, service, **request_)
    assert not done and message.startswith("this is a dry run")
    assert lab.arm.driver.calls == [] and lab.state == (State.STOPPED if stopped else State.HOLDING)


def test_at_the_joint_door_nobody_takes_the_arm_and_an_active_filter_stays_active(lab_with):
    lab = lab_with(change=lambda config: replace(config, door="joint"))
    assert lab.ask("activate", True)[0]
    done, message = ask(lab, "takeover", data=True)
    assert not done and "guiding buttons" in message
    assert lab.arm.driver.calls == [] and lab.state == State.HOLDING
