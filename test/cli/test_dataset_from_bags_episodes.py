"""`hybridvla dataset from-bags` on bags with several episodes: a row leads to nothing that came after its own one."""
from __future__ import annotations

import numpy as np
import pytest
import replay_bag
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
    """A bag with (s, event) of its episodes; returns its path."""
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
