"""`replay_player` reports that a bag was played and recorded only if it was. `rosbag` is a stand-in; there is no master."""
from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import replay_bag
import rospy
from replay_bag import BEGIN, ROOT

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots.config import load_robot
from hybridvla_ros.replay.player import Player
from hybridvla_ros.replay.topics import beyond_joints

LENGTH = 3.0
#: Stand-in for rosbag: it writes its bag when told to end, as `rosbag record` does, and plays for a moment.
ROSBAG = """#!/bin/sh
out="${3%.bag}.bag"
case "$1 $RECORDER" in
  "record dies") exit 1;;
  "record leaves nothing") trap 'exit 0' INT; while :; do sleep 0.02; done;;
  record*) trap 'echo new > "$out"; exit 0' INT; while :; do sleep 0.02; done;;
  play*) exec sleep 0.5;;
esac
"""


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """Write a bag whose played topics end after three seconds; a topic that is not played goes on for five more."""
    import rosbag
    from std_msgs.msg import String

    path = replay_bag.write(tmp_path_factory.mktemp("bags") / "demo.bag", replay_bag.Motion(LENGTH))
    with rosbag.Bag(str(path), "a") as more:
        more.write("/chatter", String("nobody plays this"), rospy.Time.from_sec(BEGIN + LENGTH + 5.0))
    return path


@pytest.fixture
def player(bag, tmp_path, monkeypatch):
    """Makes a player of the bag. out: as given; until: how far the clock gets, s into the bag; recorder: its behaviour."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/rosbag").write_text(ROSBAG)
    (tmp_path / "bin/rosbag").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name in ("Publisher", "Subscriber", "on_shutdown", "wait_for_service"):
        monkeypatch.setattr(rospy, name, lambda *_, **__: None)
    monkeypatch.setattr(rospy, "ServiceProxy", lambda *_: lambda *__: SimpleNamespace(success=True, message="done"))

    def made(out, until=LENGTH, recorder="writes", robot="sim_fr3", **more):
        given = {"~bag": str(bag), "~out": str(out), "~policy_config": str(ROOT / "config/policies/tiny.yaml"),
                 "~robot_config": str(ROOT / f"config/robots/{robot}.yaml"), **{f"~{key}": value for key, value in more.items()}}
        monkeypatch.setenv("RECORDER", recorder)
        monkeypatch.setattr(rospy, "get_param", lambda name, default=None: given.get(name, default))
        monkeypatch.setattr(rospy.Time, "now", staticmethod(lambda: rospy.Time.from_sec(BEGIN + until)))
        return Player()
    return made


def test_a_bag_that_was_played_to_its_end_is_recorded_under_the_name_with_bag_behind_it(player, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(rospy, "loginfo", lambda text, *values: said.append(text % values))
    player(tmp_path / "live").run()
    assert (tmp_path / "live.bag").is_file() and said[-1] == f"played; the proposals are in {tmp_path / 'live.bag'}"


def test_the_bag_to_be_played_is_not_overwritten_under_its_name_without_bag(player, bag):
    with pytest.raises(HybridVLAError, match="is the bag to be played"):
        player(bag.with_suffix(""))


def test_a_relative_path_is_refused_because_a_node_does_not_start_in_the_callers_folder(player, bag, tmp_path, monkeypatch):
    monkeypatch.chdir(bag.parent)
    with pytest.raises(HybridVLAError, match=r"out is 'live\.bag'.* write \$PWD/live\.bag or ~/live\.bag"):
        player("live.bag")
    with pytest.raises(HybridVLAError, match=r"bag is 'demo\.bag'.* write \$PWD/demo\.bag or ~/demo\.bag"):
        player(tmp_path / "live.bag", bag=f"{bag} demo.bag")


def test_a_player_that_breaks_off_is_named_with_what_is_missing(player, tmp_path):
    with pytest.raises(HybridVLAError, match=r"rosbag play ended 1\.\d s before the end of what it plays"):
        player(tmp_path / "live.bag", until=LENGTH - 1.5).run()


def test_a_recorder_that_ends_while_the_bag_is_played_is_named(player, tmp_path):
    with pytest.raises(HybridVLAError, match=r"live\.bag: rosbag record ended while the bag was played"):
        player(tmp_path / "live.bag", recorder="dies").run()


def test_a_recorder_that_leaves_no_bag_is_named_also_where_an_earlier_one_lies(player, tmp_path):
    (tmp_path / "live.bag").write_text("earlier")
    with pytest.raises(HybridVLAError, match=r"live\.bag: rosbag record wrote no bag there"):
        player(tmp_path / "live.bag", recorder="leaves nothing").run()
    assert (tmp_path / "live.bag").read_text() == "earlier"


def test_a_filter_that_no_bag_can_make_active_is_not_waited_for(player, bag, tmp_path):
    """A bag with the joint states of an FR3 under the driver's names: played without the filter, and refused with it."""
    import rosbag

    arm = load_robot(ROOT / "config/robots/fr3.yaml").arms[0]
    with rosbag.Bag(str(bag)) as sim, rosbag.Bag(str(tmp_path / "fr3.bag"), "w") as lab:
        for topic, message, when in sim.read_messages():
            lab.write({"/joint_states": arm.topics["joint_states"]}.get(topic, topic), message, when)
    with pytest.raises(HybridVLAError, match="robot fr3: .* /franka_state_controller/franka_states, which driver "
                                             "franka_ros also needs, is not played; use activate:=false"):
        player(tmp_path / "live.bag", robot="fr3", bag=str(tmp_path / "fr3.bag"))
    player(tmp_path / "live.bag", robot="fr3", bag=str(tmp_path / "fr3.bag"), activate=False).run()
    assert (tmp_path / "live.bag").is_file()


@pytest.mark.parametrize("robot, topics", [
    ("sim_fr3", []), ("sim_dual", []), ("fr3", ["/franka_state_controller/franka_states"]),
    ("agilex", ["/puppet/arm_status_left", "/puppet/arm_status_right", "/puppet/end_pose_left", "/puppet/end_pose_right"])])
def test_what_a_driver_is_judged_by_besides_its_joints_is_known(robot, topics):
    assert set(topics) <= set(beyond_joints(load_robot(ROOT / f"config/robots/{robot}.yaml")))
    assert bool(topics) == bool(beyond_joints(load_robot(ROOT / f"config/robots/{robot}.yaml")))


def test_a_filter_that_does_not_become_active_is_asked_again_and_each_new_reason_is_said_once(player, tmp_path, monkeypatch):
    said, asked = [], []

    def refused(*_):
        asked.append(len(asked))
        return SimpleNamespace(success=False, message=f"silent for {len(asked)} s" if len(asked) < 4 else "no policy is running")
    monkeypatch.setattr(rospy, "ServiceProxy", lambda name, _kind: refused if name.endswith("activate") else
                        lambda *_: SimpleNamespace(success=True, message="the instruction was set"))
    monkeypatch.setattr(rospy, "loginfo", lambda text, *values: said.append(text % values))
    player(tmp_path / "live.bag").run()
    assert len(asked) > 4
    assert [line for line in said if "activate" in line] == ["/hybridvla/safety/activate: silent for 1 s",
                                                             "/hybridvla/safety/activate: no policy is running"]
