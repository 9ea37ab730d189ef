"""`replay_player` reports that a bag was played and recorded only if it was. `rosbag` is a stand-in; there is no master."""
from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import replay_bag
import rospy
from replay_bag import BEGIN, ROOT

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.replay.player import Player

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
    monkeypatch.setattr(rospy, "ServiceProxy", lambda *_: lambda *__: SimpleNamespace(success=True))

    def made(out, until=LENGTH, recorder="writes"):
        given = {"~bag": str(bag), "~out": str(out), "~policy_config": str(ROOT / "config/policies/tiny.yaml"),
                 "~robot_config": str(ROOT / "config/robots/sim_fr3.yaml")}
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
