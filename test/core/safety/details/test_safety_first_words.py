"""Conditions that hold from the very beginning, and whose sentence comes first."""
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.contracts import Pose
from hybridvla_core.safety.inputs.clock_watch import AHEAD_S, STEP_S, STILL_S, ClockWatch
from hybridvla_core.safety.status import HEADINGS, SENTENCES, TO_START, Reason, State, flag_names, status_sentence, waits

pytestmark = pytest.mark.robot_computer


def free(config):
    return dataclasses.replace(config, deadman_required=False, ramp_s=0.0, speed_scale=1.0)


def test_every_counter_of_every_filter_is_there_from_the_beginning():
    assert Rig().filter.counters == dict.fromkeys(("accepted", "holds", "stops", "reseeds", "reposes", "overruns",
                                                   "target_violations", "measured_violations"), 0)


def test_before_the_first_tick_nothing_is_wrong():
    filter_ = Rig().filter
    assert filter_.detail == "" and filter_.state is State.INACTIVE and filter_.homed is False and filter_.at_rest is True
    assert filter_.stop(1.0, detail="at once") == (True, "stopped") and filter_.detail == "at once"
    assert filter_.resume(2.0) == (True, "inactive") and filter_.resume(2.0) == (False, "not stopped")


def test_the_first_look_at_a_clock_begins_it():
    assert ClockWatch(False).look(0.0, 10.0) == "" and ClockWatch(False).look(5.0, 10.0) == ""
    assert ClockWatch(True).look(0.0, 10.0) == "/clock has not begun" and ClockWatch(True).look(5.0, 10.0) == ""
    watch = ClockWatch(True)
    said = [watch.look(clock, now) for clock, now in ((0.0, 10.0), (0.0, 10.1), (0.01, 10.2))]
    assert said == ["/clock has not begun", "/clock has not begun", ""]


@pytest.mark.parametrize("gain, says", [(0.9 * STEP_S, ""), (-0.9 * STEP_S, ""), (1.5, "the clock was set ahead by 1.5 s"),
                                        (-1.5, "the clock was set back by 1.5 s"),
                                        (1.1 * STEP_S, "the clock was set ahead by 0.2 s")])
def test_a_computers_clock_is_held_against_our_own(gain, says):
    watch = ClockWatch()
    assert watch.look(1000.0, 10.0) == "" and watch.look(1003.0, 13.0) == ""
    assert watch.look(1005.0 + gain, 15.0) == says
    assert watch.look(1006.0 + gain, 16.0) == "", "and then from there"


def test_a_simulated_clock_runs_at_its_own_pace_and_may_not_jump_or_stand():
    watch = ClockWatch(True)
    watch.look(100.0, 10.0)
    assert watch.look(100.0 + 0.99 * AHEAD_S, 10.01) == "" and watch.look(102.0 + AHEAD_S, 10.02) == "/clock went ahead by 2.0 s"
    assert watch.look(103.5, 10.03) == "/clock went back by 0.5 s"
    assert watch.look(103.5, 10.03 + 0.99 * STILL_S) == ""
    assert watch.look(103.5, 10.03 + 1.4 * STILL_S) == f"/clock has stood still for {1.4 * STILL_S:.1f} s"
    assert watch.look(103.6, 20.0) == "" and watch.look(103.6, 20.0 + 0.99 * STILL_S) == ""


def test_a_start_that_is_refused_for_the_tool_leaves_it_inactive_and_says_why():
    rig = Rig(change=free)
    pose = rig.measured_pose("arm")
    rig.changes = dict(pose=Pose(pose.position + [0.0, 0.0, 0.05], pose.quaternion))
    rig.tick(3)
    for call in (lambda: rig.filter.activate(True, rig.now), lambda: rig.filter.reenter(rig.now)):
        done, text = call()
        assert done is False and text.startswith("arm: the driver's tool pose differs from ours by 50.0 mm and 0.00 degrees")
        assert rig.filter.state is State.INACTIVE and rig.filter.detail == text
        assert rig.filter.counters["reseeds"] == 0 and rig.tick().arms[0].publish is False


@pytest.mark.parametrize("reason, first", [(Reason.TICK_OVERRUN, "of the execution"), (Reason.DEADMAN, "from outside")])
def test_what_ends_motion_is_said_first_and_then_what_is_in_the_way(reason, first, monkeypatch):
    rig = Rig(change=free).start()
    rig.tick()
    execution, step = rig.filter._execution, rig.filter._execution.step

    def stepped(*arguments):
        answer = step(*arguments)
        execution.detail = execution_says[0]
        return answer
    execution_says = ["of the execution"]
    monkeypatch.setattr(execution, "step", stepped)
    rig.filter.hold_for(reason, "from outside")
    rig.tick()
    assert rig.filter.detail == first and rig.output.status.reasons & reason
    execution_says[0] = ""
    rig.tick()
    assert rig.filter.detail == "from outside"
    rig.filter.hold_for(reason, "")
    rig.tick()
    assert rig.filter.detail == "" and not rig.output.status.reasons & reason


def test_speeds_and_counts_of_the_status_are_those_of_the_filter():
    rig = Rig("sim_dual", change=lambda config: dataclasses.replace(free(config), speed_scale=0.4)).start()
    rig.tick()
    status = rig.output.status
    assert status.speed_scale == 0.4 and status.dry_run is False and status.seed == 1 and status.sequence == 0
    assert np.isnan(status.proposal_age) and np.isnan(status.observation_age)
    assert [arm.name for arm in status.arms] == ["right", "left"]
    assert all(np.isnan(arm.position_error) and np.isnan(arm.rotation_error) and not arm.at_target for arm in status.arms)
    rig.propose([rig.pose(index).position + np.array([0.0, 0.0, 0.02]) for index in range(2)],
                [rig.pose(index).quaternion for index in range(2)], observation_age=0.25, seed=1)
    begun = rig.now
    rig.tick()
    status = rig.output.status
    assert status.sequence == 1 and status.proposal_age == pytest.approx(rig.now - begun)
    assert status.observation_age == pytest.approx(0.25 + rig.now - begun)
    assert [arm.position_error for arm in status.arms] == pytest.approx([0.02, 0.02], abs=1e-4)


def test_a_sentence_is_the_heading_and_one_reason_or_the_detail():
    for state in State:
        heading = TO_START if state == State.RECOVERING else HEADINGS[state]
        assert status_sentence(state, Reason.NONE, "") == heading
        assert status_sentence(state, Reason.NONE, "so") == f"{heading}: so" == status_sentence(state, Reason.DEADMAN, "so")
        assert status_sentence(state, Reason.DEADMAN | Reason.LEASH, "") == f"{heading}: {SENTENCES[Reason.DEADMAN]}"
    outside = Reason.OUTSIDE_AT_START
    assert status_sentence(State.RECOVERING, outside, "") == f"{HEADINGS[State.RECOVERING]}: {SENTENCES[outside]}"
    assert flag_names(Reason.DEADMAN | Reason.PROPOSAL_STALE) == "PROPOSAL_STALE|DEADMAN" and flag_names(Reason.NONE) == ""
    assert set(SENTENCES) == {flag for flag in Reason if flag}


@pytest.mark.parametrize("state", list(State))
def test_only_holding_for_a_target_or_before_one_waits_for_another_proposal(state):
    stale, ways = Reason.PROPOSAL_STALE, Reason.WORKSPACE | Reason.SOLVER
    for reasons, waiting in ((stale, True), (ways, True), (stale | ways, True), (Reason.NONE, False), (Reason.DEADMAN, False),
                             (stale | Reason.LEASH, False)):
        assert waits(state, reasons) is (waiting and state == State.HOLDING)
