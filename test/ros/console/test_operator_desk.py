"""The ROS side of the operator's page, without a graph: a dead camera is not shown as live."""
from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import rospy
from sensor_msgs.msg import CompressedImage

from hybridvla_ros.console.operator.desk import SLOW, Desk
from hybridvla_ros.console.operator.state import SILENCE_S
from hybridvla_ros.recording import episode_node


@pytest.fixture
def desk(monkeypatch):
    """Return a desk of two cameras; the test uses `say` and sets `now`."""
    heard = {}
    monkeypatch.setattr(rospy, "Subscriber", lambda topic, _kind, callback, **_: heard.__setitem__(topic, callback))
    desk = Desk(tuple(SimpleNamespace(view=view, image_topic=f"/{view}", compressed=True) for view in ("front", "wrist")),
                clock=lambda: desk.now)
    desk.now, desk.say = 5.0, lambda view, data, form="jpeg": heard[f"/{view}"](CompressedImage(format=form, data=data))
    return desk


def test_a_camera_that_falls_silent_has_no_picture_and_is_named(desk):
    assert desk.snapshot()["silent_views"] == ["front", "wrist"] and desk.picture("front") is None
    desk.say("front", b"one")
    desk.say("wrist", b"two")
    assert desk.snapshot()["silent_views"] == [] and desk.picture("front") == b"one"
    desk.now += SILENCE_S
    desk.say("wrist", b"three")
    assert desk.picture("front") == b"one"
    desk.now += 0.01
    assert desk.picture("front") is None and desk.picture("wrist") == b"three" and desk.picture("other") is None
    assert desk.snapshot()["silent_views"] == ["front"] and desk.snapshot()["views"] == ["front", "wrist"]
    desk.say("front", b"four")
    assert desk.picture("front") == b"four" and desk.snapshot()["silent_views"] == []


def test_a_picture_has_the_colours_that_the_policy_sees_and_one_that_cannot_be_shown_is_named(desk):
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    data = cv2.imencode(".jpg", red)[1].tobytes()               # encoded as if it were BGR
    desk.say("front", data, "rgb8; jpeg compressed rgb8")
    shown = cv2.imdecode(np.frombuffer(desk.picture("front"), np.uint8), cv2.IMREAD_COLOR)[4, 4]
    assert shown[2] > 200 and shown[0] < 60, "a browser reads BGR files of OpenCV as red"
    desk.say("wrist", b"no picture at all", "rgb8; png compressed bgr8")
    assert desk.picture("wrist") is None
    assert set(desk.snapshot()["unshown_views"]) == {"wrist"} and "wrist" in desk.snapshot()["unshown_views"]["wrist"]
    desk.say("wrist", cv2.imencode(".png", red)[1].tobytes(), "rgb8; png compressed bgr8")
    assert desk.picture("wrist") and desk.snapshot()["unshown_views"] == {}


@pytest.fixture
def service(monkeypatch):
    """Put a function that the test chooses behind every service."""
    behind = SimpleNamespace(call=None)
    monkeypatch.setattr(rospy, "wait_for_service", lambda *_, **__: None)
    monkeypatch.setattr(rospy, "ServiceProxy", lambda *_, **__: lambda *arguments, **fields: behind.call(*arguments, **fields))
    return behind


def test_a_button_whose_node_has_frozen_says_so_and_a_stop_what_to_use_instead(desk, service, monkeypatch):
    frozen = threading.Event()
    service.call = lambda *_: frozen.wait(30)
    monkeypatch.setattr("hybridvla_ros.console.operator.desk.ANSWER_S", 0.1)
    done, message = desk.act("stop")
    assert not done and "no answer within 0.1 s" in message and "use the robot's own switch" in message
    done, message = desk.act("resume")
    assert not done and "does its node run" in message
    frozen.set()


def test_a_button_says_what_its_service_says_and_what_it_raises(desk, service):
    service.call = lambda *arguments: SimpleNamespace(success=arguments == (), message="as told")
    assert desk.act("stop") == (True, "as told") and desk.act("activate") == (False, "as told")

    def refused():
        raise rospy.ServiceException("cannot be reached")
    service.call = refused
    assert desk.act("episode_start") == (False, "the service does not answer (cannot be reached); does its node run?")


@pytest.mark.parametrize("label", ["success", "failure"])
def test_a_label_waits_for_its_bag_longer_than_other_buttons_wait(desk, service, monkeypatch, label):
    monkeypatch.setattr("hybridvla_ros.console.operator.desk.ANSWER_S", 0.05)

    def closes_a_bag():
        time.sleep(0.3)
        return SimpleNamespace(success=True, message="the bag is complete")
    service.call = closes_a_bag
    assert desk.act(f"episode_{label}") == (True, "the bag is complete")
    assert SLOW[f"episode_{label}"] > episode_node.CLOSED_S + episode_node.LOOK_S


def test_the_start_of_an_episode_waits_for_the_recorder(desk, service):
    service.call = lambda: SimpleNamespace(success=True, message="episode 1: start")
    assert desk.act("episode_start")[0] and SLOW["episode_start"] > episode_node.ANSWER_S + episode_node.LOOK_S
