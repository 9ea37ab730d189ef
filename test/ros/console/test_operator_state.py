"""What the page and `hybridvla watch` say about the messages."""
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hybridvla.msg import ActionProposal, ArmSafety, EpisodeEvent, LimitMargin, PolicyHeartbeat, SafetyStatus
from hybridvla_ros.console.operator import state as state_module
from hybridvla_ros.console.operator.state import ConsoleState


class Told:
    def __init__(self):
        self.now, self.lines = 0.0, []
        self.state = ConsoleState(self.lines.append, lambda: self.now)

    def status(self, state=SafetyStatus.ACTIVE, message="moving", **counters):
        self.state.on_status(SafetyStatus(
            state=state, message=message, counter_names=[name.replace("__", "/") for name in counters],
            counters=list(counters.values()),
            arms=[ArmSafety(name="arm", push_n=float("nan"), position_error=0.0015)],
            margins=[LimitMargin("arm/joint_1/position", 0.4, "rad", False),
                     LimitMargin("arm/joint_2/position", 0.1, "rad", True),
                     LimitMargin("workspace/z_min", 0.02, "m", False),
                     LimitMargin("measured/workspace/z_min", 0.03, "m", False)]))


@pytest.fixture
def told():
    return Told()


def test_a_change_is_one_line_and_no_change_is_none(told):
    told.status()
    told.status()
    told.status(SafetyStatus.HOLDING, "holding: the deadman is released")
    told.state.on_instruction("put it down")
    told.state.on_event(EpisodeEvent(number=3, event=EpisodeEvent.SUCCESS))
    assert [line.split(None, 1) for line in told.lines] == [
        ["robot", "ACTIVE: moving"], ["robot", "HOLDING: the deadman is released"],
        ["instruction", "put it down"], ["episode", "3: success"]]


def test_a_policy_at_work_is_no_line_and_one_in_trouble_is(told):
    for state in (PolicyHeartbeat.WAITING, PolicyHeartbeat.INFERRING) * 3:
        told.state.on_heartbeat(PolicyHeartbeat(state=state, message="waiting for the next period"))
    told.state.on_heartbeat(PolicyHeartbeat(state=PolicyHeartbeat.FAULT, message="the remote policy: gone"))
    assert [line.split(None, 1)[1] for line in told.lines] == ["well", "FAULT: the remote policy: gone"]


def of_the_policy(told):
    """Return what the page says about a policy: its instruction, and the number of its proposal."""
    snapshot = told.state.snapshot()
    return snapshot["instruction"], snapshot["proposal"].get("sequence")


def test_what_a_policy_was_told_and_proposed_goes_with_it(told):
    told.state.on_instruction("put it down")
    told.state.on_heartbeat(PolicyHeartbeat(epoch=7))
    told.state.on_proposal(ActionProposal(epoch=7, sequence=4))
    for epoch in (7, 0, 7, 0):       # 0: a policy that is loading
        told.now += 0.1
        told.state.on_heartbeat(PolicyHeartbeat(epoch=epoch))
        assert of_the_policy(told) == ("put it down", 4)
    told.now += 20.0
    told.state.on_heartbeat(PolicyHeartbeat(epoch=8))
    assert of_the_policy(told) == ("", None) and told.lines[-1].split(None, 1) == ["instruction", "none: another policy runs now"]
    told.state.on_instruction("put it down")
    told.now += 0.1
    told.state.on_heartbeat(PolicyHeartbeat(epoch=8))
    assert of_the_policy(told) == ("put it down", None) and told.lines[-1].split(None, 1) == ["instruction", "put it down"]


def test_what_a_new_policy_says_before_its_first_heartbeat_is_kept(told):
    told.state.on_instruction("put it down")
    told.state.on_heartbeat(PolicyHeartbeat(epoch=7))
    told.now += 20.0
    told.state.on_instruction("lift it")
    told.state.on_proposal(ActionProposal(epoch=8, sequence=1))
    told.state.on_heartbeat(PolicyHeartbeat(epoch=8))
    assert of_the_policy(told) == ("lift it", 1)


def test_a_proposal_tells_how_long_ago_it_came_and_the_page_shows_it(told):
    told.state.on_proposal(ActionProposal(sequence=4))
    told.now += 2.54
    proposal = told.state.snapshot()["proposal"]
    assert proposal["ago_s"] == 2.5
    page = (Path(state_module.__file__).parent / "page.js").read_text(encoding="utf-8")
    read = set(re.findall(r"\blast\.(\w+)", page))
    assert "ago_s" in read and read <= set(proposal)


def test_silence_is_said_and_shown(told):
    told.status()
    told.now += 2.0
    told.state.look()
    assert "silent" in told.lines[-1] and told.state.snapshot()["safety"]["silent"]


def test_interventions_are_counted_from_when_one_looks_and_joined(told):
    told.status(limited__workspace=7, accepted=10)
    assert told.state.snapshot()["interventions"] == []
    told.status(limited__workspace=8, accepted=11)
    told.status(limited__workspace=9, accepted=12)
    assert [(entry["text"], entry["times"]) for entry in told.state.snapshot()["interventions"]] == [("limited/workspace", 2)]
    told.now += 5.0
    told.status(limited__workspace=10, accepted=13)
    assert len(told.state.snapshot()["interventions"]) == 2
    told.status(limited__workspace=1, accepted=1)       # a filter that was started anew
    assert len(told.state.snapshot()["interventions"]) == 2


def test_a_snapshot_is_json_with_the_nearest_limits_and_no_nan(told):
    told.status()
    told.state.on_proposal(ActionProposal(sequence=4, mode=ActionProposal.ENSEMBLE, fused=True, mean_confidence=float("nan"),
                                          path_distance=0.0123))
    shown = json.loads(json.dumps(told.state.snapshot(), allow_nan=False))
    assert shown["safety"]["margins"]["commanded"] == [
        {"name": "workspace/z_min", "margin": 0.02, "unit": "m", "active": False},
        {"name": "arm/joint_2/position", "margin": 0.1, "unit": "rad", "active": True}]
    assert shown["safety"]["margins"]["measured"][0]["name"] == "measured/workspace/z_min"
    assert shown["safety"]["arms"][0]["push_n"] is None and shown["safety"]["arms"][0]["error_mm"] == 1.5
    assert shown["proposal"] == {"sequence": 4, "mode": "ensemble", "fused": True, "confidence": None, "path_distance_mm": 12.3,
                                 "path_angle_deg": 0.0, "age_ms": 0, "ago_s": 0.0}


def test_a_pose_that_is_not_known_is_none_and_not_the_origin(told):
    told.status()
    arm = told.state.snapshot()["safety"]["arms"][0]
    assert arm["measured"] is None and arm["target"] is None
