"""`hybridvla dataset from-bags` with an unusual gripper, folder, episode or split."""
from __future__ import annotations

import errno

import numpy as np
import pytest
import replay_bag
import rosbag
from replay_bag import BEGIN, FRONT, JOINTS
from test_dataset_from_bags import add, policy_file, run_verb, statuses

from hybridvla.msg import EpisodeEvent, SafetyStatus
from hybridvla_cli.__main__ import main
from hybridvla_cli.dataset_parts.from_bags import FromBags
from hybridvla_cli.dataset_parts.labels import KeyframeLabels
from hybridvla_core.data.lerobot.writer import split_of


@pytest.fixture(scope="module")
def motion():
    return replay_bag.Motion(6.0)


@pytest.fixture
def result(tmp_path):
    """Runs the verb and returns (exit status, summary, data set or None)."""
    return lambda *bags, **more: run_verb(tmp_path, *bags, **more)


@pytest.mark.parametrize("base", ["commanded", "measured"])
def test_a_gripper_that_a_bag_begins_with_closed_is_labelled_closed_until_it_opens(result, motion, tmp_path, base):
    def hold(topic, when, message, stamp):
        if topic == JOINTS:
            message.position = [*message.position[:-2], *([0.01 if when < 3.0 else 0.04] * 2)]
            if when < 0.1:      # at first, only the arm is reported
                message.name, message.position = message.name[:-2], message.position[:-2]
        return message, stamp

    bag = replay_bag.write(tmp_path / "a.bag", motion, change=hold)
    add(bag, "/hybridvla/safety/status", statuses(motion, state=SafetyStatus.ACTIVE, epoch=5, sequence=3))
    status, _, data = result(bag, policy=policy_file(tmp_path, action_period_s=0.1, delta_base=base))
    grips = data.rows(0).action[:, 6]
    assert status == 0 and set(grips[:20]) == {0.0} and set(grips[-20:]) == {1.0} and np.count_nonzero(np.diff(grips)) == 1


def test_where_nothing_can_be_written_is_said_before_a_bag_is_read(tmp_path, monkeypatch, capsys, motion):
    bag = replay_bag.write(tmp_path / "a.bag", motion)
    replay_bag.fail_to_scan(monkeypatch, "a.bag", AssertionError("read"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/mine.txt").write_text("mine")
    for output, more, words in (("set", (), "set: exists and is not empty; choose another folder, nothing is overwritten"),
                                ("set/mine.txt/set", (), "mine.txt/set: cannot be written"),
                                ("new", ("--like", str(tmp_path / "none")), "not a complete data set")):
        assert main(["dataset", "from-bags", str(bag), "-o", str(tmp_path / output), *more]) == 1
        said = capsys.readouterr().err
        assert words in said and "AssertionError" not in said, output


def test_a_bag_that_is_given_twice_becomes_episodes_once(result, motion, tmp_path, caplog):
    (tmp_path / "bags").mkdir()
    bag = replay_bag.write(tmp_path / "bags/a.bag", motion)
    status, summary, _ = result(bag.parent, bag)
    assert status == 0 and summary["episodes"] == 1
    assert f"{bag}: given more than once; it is read once" in caplog.text


def gap(topic, when, message, stamp):
    """Leave out pictures from 2 to 3 s: dense rows would not be consecutive, which only the second pass sees."""
    return None if FRONT in topic and 2.0 < when < 3.0 else (message, stamp)


def test_a_set_whose_episodes_to_train_from_are_all_left_out_says_so(result, motion, tmp_path):
    (held,) = split_of(2, 0.5, 0)[1]
    for number in range(2):
        replay_bag.write(tmp_path / f"{number}.bag", motion, change=None if number == held else gap)
    status, summary, data = result(tmp_path / "0.bag", tmp_path / "1.bag", policy=policy_file(tmp_path, action_period_s=0.1),
                                   options=["--validation", "0.5"])
    flags = {entry["episode"]: (entry["reason"], entry["kept"]) for entry in summary["flagged"]}
    assert status == 0 and summary["episodes"] == summary["validation_episodes"] == 1
    assert "no usable images from" in flags[f"{1 - held}.bag"][0]
    assert flags["set"] == ("no episode is left for training: all 1 are held out for validation; --validation 0 uses them for "
                            "training", True)
    assert len(data.frames_of("train")) == 0 and data.ours["flagged"] == summary["flagged"]


def test_an_episode_that_fails_in_the_second_pass_costs_no_other_one(result, motion, tmp_path, monkeypatch, capsys):
    names = ("a_good.bag", "b_odd.bag", "c_gone.bag")
    bags = [replay_bag.write(tmp_path / name, motion, instructions=((0.0, f"do {name}"),)) for name in names]
    add(bags[2], "/hybridvla/episode/event", [(at, EpisodeEvent(event=event)) for at, event in (
        (0.1, EpisodeEvent.START), (2.0, EpisodeEvent.SUCCESS), (2.5, EpisodeEvent.START), (5.0, EpisodeEvent.SUCCESS))])
    label, write, read, written = KeyframeLabels.of, FromBags._write, rosbag.Bag.read_messages, []

    def odd(self, frame):
        if names[1] in frame.inference.observation.instruction:
            raise AttributeError("no such field")
        return label(self, frame)

    def noted(self, out, plan, *more):
        written.append(plan.found.name)
        write(self, out, plan, *more)

    def gone(self, *topics, **options):
        for record in read(self, *topics, **options):
            if written[-1:] == [names[2]] and record[2].to_sec() > BEGIN + 1.2:
                raise OSError(errno.EIO, "Input/output error")
            yield record

    monkeypatch.setattr(KeyframeLabels, "of", odd)
    monkeypatch.setattr(FromBags, "_write", noted)
    monkeypatch.setattr(rosbag.Bag, "read_messages", gone)
    status, summary, _ = result(*bags)
    said = {entry["episode"]: entry["reason"] for entry in summary["flagged"] if not entry["kept"]}
    assert status == 0 and summary["episodes"] == 1
    assert said.pop("b_odd.bag") == "cannot be read (AttributeError: no such field)"
    assert "c_gone.bag: cannot be read to its end" in said["c_gone.bag #1"] and "Input/output error" in said["c_gone.bag #1"]
    assert said["c_gone.bag #2"] == "no frame of it can be read"
    written.clear()
    assert main(["dataset", "from-bags", str(bags[1]), "-o", str(tmp_path / "none")]) == 1
    assert "no episode can be used: b_odd.bag: cannot be read (AttributeError: no such field)" in capsys.readouterr().err
