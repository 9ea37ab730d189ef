"""`hybridvla dataset from-bags` on bags with several episodes: no row leads to anything after its own episode."""
from __future__ import annotations

import json

import numpy as np
import pytest
import replay_bag
import rosbag
import rospy
from std_msgs.msg import String
from test_dataset_from_bags import add, policy_file, run_verb

from hybridvla.msg import EpisodeEvent

EVENTS = "/hybridvla/episode/event"


@pytest.fixture(scope="module")
def motion():
    return replay_bag.Motion(6.0)


@pytest.fixture
def result(tmp_path):
    """Runs the verb and returns (exit status, summary, data set or None)."""
    return lambda *bags, **more: run_verb(tmp_path, *bags, **more)


def labelled(path, motion, *events):
    """Writes a bag with the events (s, event) of its episodes; returns its path."""
    bag = replay_bag.write(path, motion)
    add(bag, EVENTS, [(at, EpisodeEvent(event=event)) for at, event in events])
    return bag


@pytest.mark.parametrize("convention, options, rows", [
    ({}, (), 15), ({}, ("--keyframes",), 1), (dict(action_period_s=0.1), (), 23)])
def test_no_row_of_an_episode_leads_to_the_motion_after_its_label(result, motion, tmp_path, convention, options, rows):
    # The arm swings to 0.4 rad until 1.5 s and grasps until 1.9 s; from 2 s on it swings back, and the label comes in between.
    bag = labelled(tmp_path / "a.bag", motion, (0.1, EpisodeEvent.START), (2.5, EpisodeEvent.SUCCESS))
    status, summary, data = result(bag, policy=policy_file(tmp_path, **convention), options=options)
    found = data.rows(0)
    assert status == 0 and summary["success"] == 1 and len(found.state) == rows
    if not convention:
        ends = found.state[:, :3] + found.action[:, :3]
        np.testing.assert_allclose(np.arctan2(ends[:, 1], ends[:, 0]), 0.4, atol=0.01)


def test_an_episode_without_its_end_is_aborted_unless_its_sidecar_is_complete(result, motion, tmp_path):
    for name in ("by_hand", "closed", "begun_twice"):
        labelled(tmp_path / f"{name}.bag", motion, (0.1, EpisodeEvent.START))
    (tmp_path / "closed.json").write_text(json.dumps({"complete": True, "label": "success"}))
    add(tmp_path / "begun_twice.bag", EVENTS, [(at, EpisodeEvent(event=event)) for at, event in (
        (0.1, EpisodeEvent.START), (2.1, EpisodeEvent.START), (4.2, EpisodeEvent.SUCCESS))])
    replay_bag.write(tmp_path / "no_labels.bag", motion)
    _, summary, data = result(*sorted(tmp_path.glob("*.bag")))
    assert {entry["episode"]: entry["reason"] for entry in summary["flagged"]} == {
        "by_hand.bag": "labelled aborted", "begun_twice.bag #1": "labelled aborted"}
    assert {entry["source"]: entry["success"] for entry in data.ours["episodes"]} == {
        "closed.bag": True, "begun_twice.bag #2": True, "no_labels.bag": None}


def test_a_bag_that_our_recorder_has_not_finished_is_left_out_and_one_of_rosbag_record_is_not(result, motion, tmp_path):
    for name in ("ours", "by_hand"):
        bag = replay_bag.write(tmp_path / f"{name}.bag", motion)
        if name == "ours":
            with rosbag.Bag(str(bag), "a") as stream:
                stream.write("/hybridvla/recording/snapshot", String("{}"), rospy.Time.from_sec(replay_bag.BEGIN))
        bag.rename(tmp_path / f"{name}.bag.active")
    _, summary, data = result(tmp_path)
    assert [entry["source"] for entry in data.ours["episodes"]] == ["by_hand.bag.active"]
    (flag,) = [entry for entry in summary["flagged"] if not entry["kept"]]
    assert flag["episode"] == "ours.bag.active" and "has not finished it" in flag["reason"]
    assert flag["reason"].endswith("name a copy ours.bag")
