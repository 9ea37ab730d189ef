"""The instruction of a launch file is handled like one of the service: a refusal or doubt is reported."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import rospy

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import ObservationError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_ros import policy_node


class Policy:
    """A policy that knows its words."""

    def unknown_words(self, instruction):
        if "</s>" in instruction:
            raise ObservationError("the instruction holds </s>; leave it out")
        return [word for word in instruction.split() if word == "zorble"]


@pytest.fixture
def launched(monkeypatch):
    """Return a function that runs the node's main with an instruction and returns what it published and logged."""
    said = {"published": [], "loginfo": [], "logerr": []}

    class Node(policy_node.PolicyNode):
        def __init__(self, policy, config, robot):
            self.proposer = policy_node.Proposer(policy, config)
            self.doubt = lambda sentence: ""
            self._instructions = SimpleNamespace(publish=lambda message: said["published"].append(message.data))

        def spin(self):
            said["instruction"] = self.proposer.instruction

    def run(instruction):
        given = {"~policy_config": "config/policies/tiny.yaml", "~robot_config": "config/robots/sim_fr3.yaml",
                 "~instruction": instruction}
        monkeypatch.setattr(rospy, "get_param", lambda name, default=None: given.get(name, default))
        policy_node.main(Policy())
        return said

    monkeypatch.setattr(policy_node, "PolicyNode", Node)
    monkeypatch.setattr(policy_node, "Warming", lambda: SimpleNamespace(end=lambda: None))
    monkeypatch.setattr(policy_node, "use_threads", lambda threads: 1)
    for name in ("loginfo", "logerr"):
        monkeypatch.setattr(rospy, name, lambda text, *values, kind=name: said[kind].append(text % values))
    return run


def test_one_that_is_refused_is_an_error_and_published_nowhere(launched):
    said = launched("lift </s> it")
    assert said["published"] == [] and said["instruction"] == ""
    assert any("lift </s> it" in line and "leave it out" in line for line in said["logerr"])


def test_one_with_unknown_words_is_taken_and_the_doubt_is_logged(launched):
    said = launched("lift the  zorble")
    assert said["published"] == ["lift the zorble"] == [said["instruction"]] and said["logerr"] == []
    assert any("does not know zorble" in line for line in said["loginfo"])


def test_without_one_nothing_is_said_of_it(launched):
    said = launched("  ")
    assert said["published"] == [] and said["logerr"] == [] and not any("instruction" in line for line in said["loginfo"])


def test_after_a_clock_was_set_back_the_instruction_is_said_again(monkeypatch):
    now, published = [100.0], []
    monkeypatch.setattr(rospy.Time, "now", lambda: rospy.Time.from_sec(now[0]))
    monkeypatch.setattr(rospy, "logwarn", lambda *_: None)
    config = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
    node = SimpleNamespace(_clock_seen=0.0, _used=(5, 1), feed=SimpleNamespace(sync=SimpleNamespace(clear=lambda: None)),
                           proposer=policy_node.Proposer(Policy(), config),
                           _instructions=SimpleNamespace(publish=lambda message: published.append(message.data)))
    policy_node.PolicyNode._watch_clock(node)
    now[0] = 50.0
    policy_node.PolicyNode._watch_clock(node)
    assert published == [], "there is none yet"
    node.proposer.set_instruction("lift it")
    epoch, now[0] = node.proposer.epoch, 10.0
    policy_node.PolicyNode._watch_clock(node)
    assert node.proposer.epoch != epoch and published == ["lift it"]
