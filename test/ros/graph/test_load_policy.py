"""Which checkpoint a policy node loads, and what it refuses before it has read gigabytes of weights."""
from __future__ import annotations

import contextlib
import itertools
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import rospy

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import CheckpointError, ConfigurationError, ObservationError
from hybridvla_core.evaluation.trained import doubts
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.cameras import CameraRig
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import misfits
from hybridvla_core.policy.remote.settings import RemoteSource
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.transforms.conventions import ActionConvention
from hybridvla_ros.policy_node import PolicyNode, load_policy
from hybridvla_ros.runtime import warming
from hybridvla_ros.stand_ins.expert_policy import RemoteExpert

TINY = ROOT / "checkpoints/tiny"


def config(name):
    return load_file(PolicyConfig, ROOT / f"config/policies/{name}.yaml")


def robot(name):
    return load_file(RobotConfig, ROOT / f"config/robots/{name}.yaml")


@pytest.fixture
def weightless(tmp_path):
    """Return the tiny checkpoint without its weights, as if they were lost in transfer."""
    for path in TINY.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(str(path), str(tmp_path / path.name))
    return tmp_path


def test_the_real_rigs_policy_fits_a_released_checkpoint_its_robot_and_its_cameras():
    released = SimpleNamespace(cameras=("front", "wrist"),
                               convention=load_file(ActionConvention, ROOT / "config/conventions/released_7dof.yaml"))
    policy, rig = config("fr3"), load_file(CameraRig, ROOT / "config/cameras/fr3_realsense.yaml")
    assert misfits(released, policy, robot("fr3")) == []
    assert policy.cameras == rig.cameras and (policy.device, policy.dtype) == ("cuda", "bfloat16")
    assert (policy.max_observation_age_s, policy.max_camera_spread_s) == (rig.max_age_s, rig.max_spread_s)


def test_a_misfit_is_refused_without_the_weights(weightless):
    with pytest.raises(ConfigurationError, match=r"cameras \['front'\].*has delta_base 'measured'.*has state_source 'measured'"):
        load_policy(config("fr3"), robot("fr3"), str(weightless))
    with pytest.raises(ConfigurationError, match="moves the arms"):
        load_policy(config("tiny"), robot("sim_dual"), str(weightless))
    with pytest.raises(CheckpointError, match="model.safetensors"):
        load_policy(config("tiny"), robot("sim_fr3"), str(weightless))     # it fits, and only then are the weights found missing


def test_a_checkpoint_has_to_be_named(tmp_path):
    with pytest.raises(ConfigurationError, match="no checkpoint is named; launch with checkpoint:=FOLDER"):
        load_policy(config("fr3"), robot("fr3"))
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        load_policy(config("fr3"), robot("fr3"), "...")
    with pytest.raises(CheckpointError, match="config.json missing"):
        load_policy(config("fr3"), robot("fr3"), str(tmp_path))


def test_the_launch_argument_takes_the_place_of_none_in_the_file():
    named = replace(config("tiny"), checkpoint="")
    assert load_policy(named, robot("sim_fr3"), "checkpoints/tiny").cameras == ("front",)


def test_a_sentence_that_the_checkpoint_was_not_trained_for_is_followed_and_doubted_in_the_log(monkeypatch):
    said = []
    monkeypatch.setattr(rospy, "logwarn", lambda text, *values: said.append(text % values))
    node = PolicyNode.__new__(PolicyNode)
    node.proposer, node._instructions = SimpleNamespace(instruction=""), SimpleNamespace(publish=lambda message: None)
    node.doubt = doubts(TINY)

    def set_instruction(text, hold):
        node.proposer.instruction = text
        return SimpleNamespace(success=True, message="")
    node.proposer.set_instruction = set_instruction
    assert node.instruct("put the red block on the green pad").success and not said
    assert node.instruct("close fridge").success
    assert len(said) == 1 and "was not trained for 'close fridge'" in said[0]


def test_the_expert_has_nothing_to_warm_up_and_another_policy_that_fails_at_it_says_so():
    def predict(observation, mode):
        raise ObservationError(f"task 'wine_at_rack' cannot judge {observation.instruction!r}")

    node = PolicyNode.__new__(PolicyNode)
    node.config, node._problem = config("suite"), "warming up"
    with pytest.raises(ObservationError, match="wine_at_rack"):
        node._warm_up(SimpleNamespace(predict=predict))
    node._warm_up(SimpleNamespace(predict=predict, warms_up=RemoteExpert.warms_up))
    assert node._problem == ""


@pytest.mark.parametrize("patience_s, answers", [(60.0, True), (0.1, False)])
def test_a_servers_first_answer_may_come_too_late_as_long_as_a_server_is_waited_for(monkeypatch, patience_s, answers):
    late = [True, True] if answers else itertools.repeat(True)
    to_come, said = itertools.chain(late, itertools.repeat(False)), []

    def predict(observation, mode):
        if next(to_come):
            raise ObservationError("ws://gpu:8000 sent no more than silence for 2 s")

    monkeypatch.setattr(rospy, "logwarn", lambda text, *values: said.append(text % values))
    monkeypatch.setattr(warming, "AGAIN_S", 0.01)
    node = PolicyNode.__new__(PolicyNode)
    node.config = replace(config("tiny"), backend="remote",
                          remote=RemoteSource("ws://127.0.0.1:8000", connect_timeout_s=patience_s))
    with contextlib.nullcontext() if answers else pytest.raises(ObservationError, match="silence for 2 s"):
        node._warm_up(SimpleNamespace(predict=predict, link_problem=lambda: ""))
    assert said[:2] == ["the first prediction: ws://gpu:8000 sent no more than silence for 2 s; trying again"] * 2
    assert not answers or len(said) == 2
