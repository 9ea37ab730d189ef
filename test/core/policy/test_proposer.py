"""The policy node's logic without ROS: instructions, sequences, blocking keyframes, refusals."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import ArmState, Kind, Mode, PolicyState, Pose, Prediction
from hybridvla_core.errors import ConfigurationError, ObservationError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import image_preparer
from hybridvla_core.policy.proposing.pose_history import PoseHistory
from hybridvla_core.policy.proposing.proposer import Proposer, check_fit, misfits
from hybridvla_core.robots.config import RobotConfig

IMAGES = {"front": np.zeros((256, 256, 3), dtype=np.uint8)}


class Still:
    """A policy that moves 1 cm along x."""

    cameras, manifest_sha256 = ("front",), "0" * 64

    def __init__(self, convention):
        self.convention = convention

    def predict(self, observation, mode=None, seed=0):
        action = np.array([[0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action)


class Desk:
    """A proposer, a clock that the test sets, and everything that was published."""

    def __init__(self, execution="auto", **convention):
        config = replace(load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml"), execution=execution)
        self.config = replace(config, convention=replace(config.convention, **convention))
        self.robot = load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml")
        self.policy = Still(self.config.convention)
        self.now, self.proposals, self.heartbeats = 10.0, [], []
        self.proposer = Proposer(self.policy, self.config, epoch=5, publish=self.proposals.append,
                                 publish_heartbeat=self.heartbeats.append, clock=lambda: self.now, monotonic=lambda: self.now)
        self.state(0.3)

    def state(self, x):
        pose = Pose(np.array([x, 0.0, 0.4]), np.array([1.0, 0.0, 0.0, 0.0]))
        self.proposer.on_arm_state(ArmState("arm", (), np.zeros(0), pose=pose, gripper=1.0), self.now)

    def step(self):
        return self.proposer.step(IMAGES, int(self.now * 1e9))


@pytest.fixture
def desk():
    return Desk()


def test_nothing_happens_without_an_instruction(desk):
    assert not desk.proposer.due()
    with pytest.raises(ObservationError, match="no instruction"):
        desk.step()
    answer = desk.proposer.set_instruction("  ")
    assert not answer.success and "empty" in answer.message


def test_a_proposal_adds_the_action_to_the_measured_pose(desk):
    desk.proposer.set_instruction("go")
    proposal = desk.step()
    target = proposal.targets[0]
    assert proposal.sequence == 1 and proposal.instruction == "go" and proposal.epoch == 5
    assert np.allclose(target.target.position, [0.31, 0.0, 0.4]) and target.gripper == 1.0
    assert target.frame == "fr3_link0" and proposal.valid_for == desk.config.keyframe_timeout_s


def test_the_base_is_the_pose_at_the_stamp_of_the_image(desk):
    desk.proposer.set_instruction("go")
    desk.now = 10.1
    desk.state(0.4)
    proposal = desk.proposer.step(IMAGES, int(10.05e9))
    assert proposal.targets[0].base.position[0] == pytest.approx(0.35)


def test_a_keyframe_blocks_until_it_is_reached(desk):
    desk.proposer.set_instruction("go")
    desk.step()
    desk.now += 1.0
    assert not desk.proposer.due()
    desk.proposer.on_execution(5, 1, False)
    assert not desk.proposer.due()
    desk.proposer.on_execution(5, 1, True)
    assert desk.proposer.due()


def test_a_keyframe_that_the_filter_dropped_does_not_block(desk):
    desk.proposer.set_instruction("go")
    desk.step()
    desk.now += 0.6
    desk.proposer.on_execution(5, 1, False)                 # under way
    assert not desk.proposer.due()
    desk.proposer.on_execution(5, 1, False, waiting=True)   # a hold dropped it, and the hold is over
    assert desk.proposer.due()
    desk.proposer.set_instruction("on")
    desk.state(0.3)
    desk.step()
    desk.now += 0.2
    desk.proposer.on_execution(5, 1, False, waiting=True)   # a status from before the filter saw the new keyframe
    assert not desk.proposer.due()


def test_images_from_the_way_to_a_keyframe_are_not_wanted(desk):
    desk.proposer.set_instruction("go")
    assert desk.proposer.wants(desk.now - 0.1)
    desk.step()
    desk.now += 1.0
    desk.proposer.on_execution(5, 1, True)
    desk.now += 0.05
    desk.proposer.on_execution(5, 1, True)
    assert not desk.proposer.wants(desk.now - 0.06) and desk.proposer.wants(desk.now - 0.04)
    desk.now -= 5.0
    assert desk.proposer.wants(desk.now)


def test_a_keyframe_that_is_never_reached_times_out(desk):
    desk.proposer.set_instruction("go")
    desk.step()
    desk.now += desk.config.keyframe_timeout_s + 0.1
    assert desk.proposer.due()


def test_a_switch_discards_the_inference_under_way(desk):
    desk.proposer.set_instruction("one")
    inference = desk.proposer.begin(IMAGES, int(desk.now * 1e9))
    answer = desk.proposer.set_instruction("two", hold=True)
    assert answer.previous == "one" and answer.instruction_sequence == 2
    assert desk.proposals[-1].kind == Kind.HOLD and desk.proposals[-1].instruction_sequence == 2
    assert desk.heartbeats[-1].instruction_sequence == 2
    assert desk.proposer.finish(inference, desk.proposer.predict(inference)) is None
    assert desk.proposer.discarded == 1
    proposal = desk.step()
    assert proposal.instruction == "two" and proposal.sequence > desk.proposals[-2].sequence


@pytest.mark.parametrize("images, stamp, message", [
    ({}, 10.0, "no image from camera front"), (IMAGES, 9.0, "old"),
    ({"front": np.zeros((480, 640, 3), dtype=np.uint8)}, 10.0, "640x480")])
def test_images_that_cannot_be_used_are_named(desk, images, stamp, message):
    desk.proposer.set_instruction("go")
    with pytest.raises(ObservationError, match=message):
        desk.proposer.step(images, int(stamp * 1e9))
    assert not desk.proposals


def test_no_progress_is_a_fault(desk):
    desk.proposer.set_instruction("go")
    desk.proposer.begin(IMAGES, int(desk.now * 1e9))
    assert desk.proposer.heartbeat().state == PolicyState.INFERRING
    desk.now += desk.config.inference_timeout_s + 1.0
    assert desk.proposer.heartbeat().state == PolicyState.FAULT


def test_what_does_not_fit_is_refused(desk):
    check_fit(desk.policy, desk.config, desk.robot)
    desk.policy.cameras = ("front", "wrist")
    with pytest.raises(ConfigurationError, match="cameras"):
        check_fit(desk.policy, desk.config, desk.robot)



@pytest.mark.parametrize("key", ["prepare_on_arrival", "reduced_jpeg"])
def test_a_policy_that_cannot_prepare_images_is_refused_before_the_first_of_them(desk, key):
    assert image_preparer(desk.policy, desk.config) is None
    with pytest.raises(ConfigurationError, match="Still cannot prepare images"):
        image_preparer(desk.policy, replace(desk.config, **{key: True}))


def test_an_observation_waits_for_arm_states_up_to_its_stamp_but_not_for_ever(desk):
    assert desk.proposer.covers(10.0) and not desk.proposer.covers(10.01)
    desk.now = 10.02
    desk.state(0.3)
    assert desk.proposer.covers(10.01)
    desk.now = 10.1 + desk.config.max_state_gap_s
    assert desk.proposer.covers(10.05)


def test_a_clock_set_back_begins_a_new_epoch_and_drops_what_was_under_way(desk):
    desk.proposer.set_instruction("go")
    first = desk.step()
    desk.now += 1.0
    desk.state(0.3)
    under_way = desk.proposer.begin(IMAGES, int(desk.now * 1e9))
    desk.now = 3.0
    assert not desk.proposer.due()                  # it waits for the first keyframe
    desk.proposer.start_over()
    assert desk.proposer.due() and desk.proposer.wants(1.0)
    assert desk.proposer.finish(under_way, desk.policy.predict(under_way.observation)) is None
    assert not desk.proposer.covers(3.0)
    desk.state(0.3)
    again = desk.step()
    assert again.epoch != first.epoch and again.sequence == 1 and again.instruction == "go"


def test_after_a_clock_was_set_back_proposals_carry_the_filters_present_seed(desk):
    desk.proposer.set_instruction("go")
    for now, seed in ((10.0, 3), (20.0, 4)):
        desk.now = now
        desk.proposer.on_commands({}, now, 0, 0, True, seed)
    desk.now = 5.0
    desk.proposer.start_over()
    desk.state(0.3)
    assert desk.step().seed == 4
    desk.now = 6.0
    desk.state(0.3)
    desk.proposer.on_commands({}, 6.0, 0, 0, True, 4)
    desk.proposer.on_commands({}, 6.0, 0, 0, True, 5)
    desk.proposer.set_instruction("go on")
    assert desk.proposer.begin(IMAGES, int(5.99e9)).seed == 4, "from before the filter began anew"
    assert desk.proposer.begin(IMAGES, int(6e9)).seed == 5


class Reads(Still):
    """A policy that says which words of an instruction it does not know."""

    def unknown_words(self, instruction):
        if "</s>" in instruction:
            raise ObservationError("the instruction holds </s>; leave it out")
        return [word for word in instruction.split() if word == "zorble"]


def test_an_instruction_is_judged_by_the_policy_before_it_is_taken(desk):
    desk.proposer.policy = Reads(desk.config.convention)
    assert desk.proposer.set_instruction("lift the box").message == "the instruction was set"
    answer = desk.proposer.set_instruction("lift the zorble")
    assert answer.success and "does not know zorble" in answer.message
    refused = desk.proposer.set_instruction("lift </s> it")
    assert not refused.success and "</s>" in refused.message and desk.proposer.instruction == "lift the zorble"
    assert refused.instruction_sequence == answer.instruction_sequence


def chunked(steps, period=0.1, mode="ensemble", **limits):
    """Return the misfits between a policy that predicts `steps` steps and a robot with changed limits on proposals."""
    desk = Desk(action_period_s=period)
    desk.policy.chunk = steps
    robot = replace(desk.robot, proposals=replace(desk.robot.proposals, **limits))
    return misfits(desk.policy, replace(desk.config, mode=mode), robot)


def test_a_chunk_that_the_filter_would_always_refuse_is_named_before_anything_runs():
    assert chunked(16, max_chunk=16, max_valid_for_s=2.0) == []
    too_many, too_long = chunked(17, max_chunk=16, max_valid_for_s=1.0)
    assert "predicts 17 steps at once, but robot sim_fr3 accepts at most 16" in too_many
    assert "valid for 1.8 s, but robot sim_fr3 accepts at most 1 s" in too_long
    assert chunked(None, max_chunk=1) == [], "a policy that does not say"
    assert chunked(17, mode="autoregressive", max_chunk=1, max_valid_for_s=0.5) == [], "tokens say one step"
    assert chunked(4, period=0.0, max_valid_for_s=10.0) == [], "a keyframe's time is its timeout"


def test_readings_whose_stamp_stands_still_do_not_fill_the_memory():
    history = PoseHistory("arm")
    for number in range(1000):
        history.add(7.0, Pose(np.full(3, float(number)), np.array([0.0, 0.0, 0.0, 1.0])), 0.5)
    assert len(history) == 1 and history.at(7.0, 0.1)[0].position[0] == 999.0


def test_a_switch_in_the_middle_of_a_chunk_takes_effect_at_once():
    desk = Desk(execution="blocking", action_period_s=0.1)
    desk.policy.predict = lambda *_, **__: Prediction(action=(rows := np.tile([0.01, 0, 0, 0, 0, 0, 1.0], (16, 1))),
                                                      mode=Mode.DIFFUSION, fused=False, diffusion=rows)
    desk.proposer.set_instruction("a")
    assert desk.step()
    desk.now += 0.3
    desk.state(0.33)
    assert not desk.proposer.due() and not desk.proposer.wants(desk.now)
    desk.proposer.set_instruction("b")
    assert desk.proposer.due() and not desk.proposer.wants(desk.now - 0.1), "images of the way are of the old chunk"
    assert desk.proposer.wants(desk.now)
