"""Labels and recorder together: an episode that the recorder refuses is refused, and both write into one folder."""
from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
import rospy
import yaml
from recordings import Graph, config
from std_msgs.msg import String

from hybridvla.msg import EpisodeEvent
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.waiting import wait_until
from hybridvla_ros.console import instruction_source
from hybridvla_ros.console.instruction_source import InstructionSource
from hybridvla_ros.recording import episode_node, recorder_node
from hybridvla_ros.recording.episode_node import EpisodeNode
from hybridvla_ros.recording.episodes import read_events
from hybridvla_ros.recording.recorder_node import RecorderNode


@pytest.fixture
def graph(monkeypatch):
    made = Graph(monkeypatch)
    for module in (episode_node, recorder_node):
        monkeypatch.setattr(module, "Diagnostics", lambda *_: None)
    monkeypatch.setattr(recorder_node, "Rate", lambda *_: None)
    monkeypatch.setattr(recorder_node, "TopicSubscriptions", lambda _config: SimpleNamespace(
        fought_over=lambda: "", wait=lambda _seconds: made.silent, attach=lambda *_: None, detach=lambda: None))
    made.silent = []
    return made


def follower(folder, follow=True):
    return RecorderNode(config(str(folder), start_free_gb=0.0, stop_free_gb=0.0, topics=[{"name": "/note", "required": False}]),
                        [], "none", follow)


def nodes(graph, folder, follow=True):
    graph.recorder = follower(folder, follow)
    EpisodeNode(folder / "episodes.jsonl")
    return lambda: [event["event"] for event in read_events(folder / "episodes.jsonl")]


def test_an_episode_that_the_recorder_refuses_is_refused_and_discarded(graph, tmp_path):
    events = nodes(graph, tmp_path)
    graph.silent = ["/joint_states"]
    answer = graph.call("episode/start")
    assert not answer.success
    assert "episode 1 is not recorded and was discarded: nothing arrives on /joint_states" in answer.message
    assert events() == ["start", "discard"]
    graph.silent = []
    assert graph.call("episode/start").success and list(tmp_path.glob("*.active"))
    assert graph.call("episode/success").success
    assert events()[2:] == ["start", "success"]


def test_a_recording_started_by_hand_survives_the_episode_that_is_refused_for_it(graph, tmp_path):
    nodes(graph, tmp_path)
    assert graph.call("record/start").success
    answer = graph.call("episode/start")
    assert not answer.success and "is being recorded; stop or discard it first" in answer.message
    assert list(tmp_path.glob("*.active")), "the discarded episode's event has ended the other recording"
    assert graph.call("record/stop").success


@pytest.mark.parametrize("recorder", ["none", "does not follow"])
def test_without_a_recorder_that_follows_labels_are_kept_alone(graph, tmp_path, recorder):
    if recorder == "none":
        EpisodeNode(tmp_path / "episodes.jsonl")
    else:
        nodes(graph, tmp_path, follow=False)
    graph.silent = ["/joint_states"]
    assert graph.call("episode/start").success and graph.call("episode/success").success


def test_where_episodes_are_to_be_recorded_none_begins_without_a_recorder(graph, tmp_path):
    EpisodeNode(tmp_path / "episodes.jsonl", recorded=True)
    answer = graph.call("episode/start")
    assert not answer.success and "no recorder listens" in answer.message
    assert not graph.call("episode/success").success, "no episode has begun"


def test_a_recorder_that_does_not_answer_is_named(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(episode_node, "ANSWER_S", 0.05)
    graph.publisher(episode_node.STARTED_TOPIC)
    EpisodeNode(tmp_path / "episodes.jsonl")
    answer = graph.call("episode/start")
    assert not answer.success and "the recorder does not answer" in answer.message


@pytest.mark.parametrize("labels", ["", "elsewhere.jsonl"])
def test_labels_lie_beside_the_bags_unless_another_place_is_named(graph, tmp_path, monkeypatch, labels):
    path = tmp_path / "recording.yaml"
    path.write_text(yaml.safe_dump({"folder": str(tmp_path / "session"), "topics": [{"name": "/note"}]}))
    given = {"~file": str(tmp_path / labels) if labels else "", "~config": str(path)}
    monkeypatch.setattr(rospy, "get_param", lambda name, default="": given.get(name, default))
    monkeypatch.setattr(rospy, "spin", lambda: None)
    episode_node.main()
    graph.call("episode/start")
    found = [str(place.relative_to(tmp_path)) for place in tmp_path.rglob("*.jsonl")]
    assert found == [labels or "session/episodes.jsonl"]
    text = (ROOT / "launch/record.launch").read_text(encoding="utf-8")
    assert '<arg name="labels" default=""' in text and text.count('<param name="config" value="$(arg config)"/>') == 2


@pytest.mark.parametrize("labels", ["mine.jsonl", "lab/mine.jsonl"])
def test_a_relative_file_of_labels_is_refused_and_not_written_somewhere_else(graph, tmp_path, monkeypatch, labels):
    given = {"~file": labels}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rospy, "get_param", lambda name, default="": given.get(name, default))
    monkeypatch.setattr(rospy, "spin", lambda: None)
    with pytest.raises(HybridVLAError, match=rf"labels is '{labels}'.* write \$PWD/{labels} or ~/{labels}"):
        episode_node.main()
    assert not list(tmp_path.rglob("*.jsonl"))


def test_instructions_are_not_taken_away_from_a_policy_that_runs(graph, monkeypatch):
    import socket

    with socket.socket() as policy:
        policy.bind(("127.0.0.1", 0))
        policy.listen()
        master = SimpleNamespace(lookupService=lambda _name: f"rosrpc://127.0.0.1:{policy.getsockname()[1]}")
        monkeypatch.setattr(instruction_source.rosgraph, "Master", lambda _name: master)
        with pytest.raises(HybridVLAError, match="takes instructions.*teleop:=none.*is running already"):
            InstructionSource()
        assert graph.services == {}
    monkeypatch.setattr(rospy, "get_param", lambda name, default="": default)
    InstructionSource()             # only the entry of the crashed one is left
    assert json.dumps(list(graph.services)) == '["/hybridvla/policy/set_instruction"]'


def event(kind, number, seconds, name=None):
    message = EpisodeEvent(number=number, id=f"episode-{number}" if name is None else name, event=kind)
    message.header.stamp = rospy.Time.from_sec(seconds)
    return message


def raw_event(*arguments):
    buffer = io.BytesIO()
    event(*arguments).serialize(buffer)
    return SimpleNamespace(_buff=buffer.getvalue(), _connection_header={"callerid": "/episode_node"})


@pytest.fixture
def heard(graph, tmp_path, monkeypatch):
    """Return a function that sends events, in order, to a recorder which began at 1000 s; it returns the answers by episode."""
    node, answers = follower(tmp_path), {}
    monkeypatch.setattr(node._started, "publish", lambda message: answers.update(
        {json.loads(message.data)["id"]: json.loads(message.data)["problem"]}))

    def hear(now, *arguments):
        monkeypatch.setattr(rospy.Time, "now", lambda: rospy.Time.from_sec(now))
        node._on_event(raw_event(*arguments))
        return answers
    return hear


def test_a_start_that_has_waited_for_the_bag_before_it_to_close_is_recorded(heard, tmp_path):
    assert heard(1001.0, EpisodeEvent.START, 1, 1001.0) == {"episode-1": ""}
    heard(1040.0, EpisodeEvent.SUCCESS, 1, 1010.0)
    assert heard(1041.0, EpisodeEvent.START, 2, 1012.0)["episode-2"] == ""
    assert [path.name for path in tmp_path.glob("*.active")] == ["episode-2.bag.active"]


def test_an_episode_that_began_before_the_recorder_is_not_recorded_and_the_answer_says_why(heard, tmp_path):
    assert "it began before this recorder" in heard(1001.0, EpisodeEvent.START, 1, 990.0)["episode-1"]
    assert not list(tmp_path.glob("*.active"))
    assert heard(1002.0, EpisodeEvent.START, 2, 991.0)["episode-2"] == "", "a clock that was set back, or another computer's"


def test_an_event_that_comes_twice_counts_once(heard):
    assert heard(1001.0, EpisodeEvent.START, 1, 1001.0) == {"episode-1": ""}
    assert heard(1002.0, EpisodeEvent.START, 1, 1001.0) == {"episode-1": ""}, "it is being recorded, and not refused"


@pytest.mark.parametrize("name", ["", ".", "../outside", "{folder}/outside", "-rf", "one.broken", "a b", "one\n"])
def test_an_id_that_is_no_plain_name_becomes_no_file_and_the_answer_says_why(heard, tmp_path, monkeypatch, name):
    name = name.format(folder=tmp_path.parent)
    assert "letters, digits, _ and -" in heard(1001.0, EpisodeEvent.START, 1, 1001.0, name)[name]
    assert not list(tmp_path.iterdir()) and not list(tmp_path.parent.glob("*.active"))
    assert heard(1002.0, EpisodeEvent.START, 2, 1002.0)["episode-2"] == "", "the next episode is recorded"


def test_a_file_beside_the_recordings_is_not_read_for_an_id_that_leads_there(graph, tmp_path, monkeypatch):
    folder, said = tmp_path / "bags", []
    folder.mkdir()
    (tmp_path / "private.json").write_text('{"bag": "secret"}')
    node = follower(folder)
    monkeypatch.setattr(node._finished, "publish", said.append)
    for kind in (EpisodeEvent.START, EpisodeEvent.SUCCESS):
        node._on_event(raw_event(kind, 1, 1000.0, "../private"))
    assert not said
    node._on_event(raw_event(EpisodeEvent.SUCCESS, 2, 1000.0))
    assert json.loads(said[0].data)["bag"] == "episode-2.broken.bag", "a plain name is answered"


def test_without_time_the_latched_event_of_before_is_told_by_its_age(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(rospy.Time, "now", rospy.Time)
    node = follower(tmp_path)
    monkeypatch.setattr(rospy.Time, "now", lambda: rospy.Time.from_sec(50.0))
    node._on_event(raw_event(EpisodeEvent.START, 1, 40.0))
    assert not list(tmp_path.glob("*.active"))


def test_a_success_whose_bag_is_broken_is_answered_so_and_the_label_is_kept(graph, tmp_path):
    events = nodes(graph, tmp_path)
    assert graph.call("episode/start").success
    recording = graph.recorder._recording
    recording.writer.put_message("/note", String("hello"), 1)
    assert wait_until(lambda: recording.writer.counts["/note"].written, 20.0)
    recording.writer.counts["/note"].dropped = 3
    answer = graph.call("episode/success")
    assert not answer.success
    assert "episode 1: success" in answer.message and "The label is kept, but the bag is broken: /note: 3" in answer.message
    assert events() == ["start", "success"] and len(list(tmp_path.glob("*.broken.bag"))) == 1


def test_a_success_names_the_bag_that_is_complete_once_it_is(graph, tmp_path):
    nodes(graph, tmp_path)
    assert graph.call("episode/start").success
    answer = graph.call("episode/success")
    bag, = tmp_path.glob("*.bag")
    assert answer.success and f"{bag.name} is complete" in answer.message


def test_an_episode_whose_recording_was_closed_early_is_answered_so_at_its_label(graph, tmp_path, monkeypatch):
    nodes(graph, tmp_path)
    assert graph.call("episode/start").success
    monkeypatch.setattr(graph.recorder._recording, "must_end", lambda _now: "it is longer than max_duration_s, 600 s")
    graph.recorder._watch()
    answer = graph.call("episode/failure")
    assert not answer.success and "the bag is broken: closed early: it is longer than max_duration_s" in answer.message


def test_a_recorder_that_was_killed_and_started_again_says_what_became_of_the_bag(graph, tmp_path):
    nodes(graph, tmp_path)
    assert graph.call("episode/start").success
    name = graph.recorder._recording.name
    graph.recorder._recording = None
    for path in tmp_path.glob("*.active"):
        path.rename(tmp_path / f"{name}.broken.bag")
    (tmp_path / f"{name}.json").write_text(json.dumps(
        {"bag": f"{name}.broken.bag", "complete": False, "problems": ["the recorder ended"]}))
    answer = graph.call("episode/success")
    assert not answer.success and "the bag is broken: the recorder ended" in answer.message


def test_an_unforeseen_error_on_closing_is_answered_at_once(graph, tmp_path, monkeypatch):
    nodes(graph, tmp_path)
    assert graph.call("episode/start").success
    monkeypatch.setattr(graph.recorder._recording, "finish", lambda *_: {}["a"])
    answer = graph.call("episode/success")
    assert not answer.success and "KeyError: 'a'" in answer.message


def test_a_recorder_that_is_gone_is_named_at_the_label(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(episode_node, "LOOK_S", 0.01)
    nodes(graph, tmp_path)
    assert graph.call("episode/start").success
    graph.ears[episode_node.EPISODE_EVENT].clear()
    graph.publishers[episode_node.STARTED_TOPIC] = 0
    answer = graph.call("episode/success")
    assert not answer.success and "the recorder is gone" in answer.message
    assert graph.call("episode/start").success, "without a recorder, labels are kept alone"


def test_a_recorder_that_does_not_close_the_bag_is_waited_for_no_longer_than_told(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(episode_node, "CLOSED_S", 0.05)
    nodes(graph, tmp_path)
    assert graph.call("episode/start").success
    graph.ears[episode_node.EPISODE_EVENT].clear()
    answer = graph.call("episode/success")
    assert not answer.success and "has not closed the bag" in answer.message
