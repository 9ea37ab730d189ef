"""Frames prepared on arrival: the prediction is the same as without, and a frame's fault is reported when it is used."""
from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import rospy
from sensor_msgs.msg import CompressedImage, Image

from hybridvla_core.errors import ObservationError
from hybridvla_core.policy.cameras import CameraSource
from hybridvla_core.policy.fit import image_preparer
from hybridvla_core.transforms.images import PreparedImage
from hybridvla_ros.observation import camera_feed
from hybridvla_ros.observation.camera_feed import CameraFeed, CameraImage
from hybridvla_ros.policy_node import PolicyNode

SMOOTH = cv2.resize(np.random.default_rng(2).integers(0, 256, (6, 8, 3), dtype=np.uint8), (640, 480),
                    interpolation=cv2.INTER_LINEAR)
NOW = 1000.0


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    from small_policy import write

    from hybridvla_core.policy.predictor import Policy

    made = Policy.from_checkpoint(write(tmp_path_factory.mktemp("checkpoint") / "small"))
    for weights in made.model.final_layer.parameters():
        weights.data *= 0.05                   # so that random weights do not predict the ends of the range
    return made


@pytest.fixture
def feed(monkeypatch, policy):
    """Makes the feed of a policy node with the given options, without a master; the node's own conversion is used."""
    monkeypatch.setattr(camera_feed.rospy, "Subscriber", lambda *_, **__: None)
    monkeypatch.setattr(camera_feed, "Diagnostics", lambda *_: None)
    monkeypatch.setattr(camera_feed, "Rate", lambda *_: None)
    monkeypatch.setattr(camera_feed.rospy.Time, "now", lambda: rospy.Time.from_sec(NOW))

    def make(early=False, reduced=False):
        config = SimpleNamespace(prepare_on_arrival=early, reduced_jpeg=reduced)
        node = SimpleNamespace(policy=policy, config=config, _preparer=image_preparer(policy, config))
        return CameraFeed([CameraSource("front", "/front")], 0.03, 0.5,
                          lambda message, view: PolicyNode._convert(node, message, view), early)
    return make


def raw(pixels=SMOOTH, encoding="rgb8"):
    height, width = pixels.shape[:2]
    return Image(height=height, width=width, encoding=encoding, step=3 * width, data=pixels.tobytes())


def jpeg(pixels=SMOOTH):
    data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    return CompressedImage(format="jpeg", data=data.tobytes())


def used(feed, message):
    """Return what the node's loop takes from a message that has just arrived."""
    message.header.stamp = rospy.Time.from_sec(NOW - 0.1 + 0.001 * feed.sync.received["front"])
    feed._on_image(message, "front")
    found, problem = feed.latest()
    assert not problem
    return found.messages["front"].image("front")


def predicted(policy, image):
    from small_policy import observation

    return policy.predict(observation(images={"front": image}))


@pytest.mark.parametrize("message", [raw, jpeg], ids=["raw", "jpeg"])
def test_prepared_on_arrival_gives_the_same_prediction(feed, policy, message):
    late, early = used(feed(), message()), used(feed(early=True), message())
    assert isinstance(late, np.ndarray) and isinstance(early, PreparedImage) and early.shape == late.shape
    np.testing.assert_array_equal(predicted(policy, early).action, predicted(policy, late).action)
    other = predicted(policy, used(feed(early=True), raw(255 - SMOOTH)))
    assert not np.array_equal(other.action, predicted(policy, late).action), "the policy does look"


@pytest.mark.parametrize("early", [False, True])
def test_a_reduced_jpeg_is_nearly_the_same_and_other_messages_are_not_touched_by_it(feed, policy, early):
    full, reduced = used(feed(early=early), jpeg()), used(feed(early=early, reduced=True), jpeg())
    assert isinstance(reduced, PreparedImage) and reduced.shape == SMOOTH.shape
    whole = full if early else policy.prepare(full, "front")
    for key, pixels in reduced.fitted.items():
        apart = np.abs(pixels.astype(int) - whole.fitted[key]).mean()
        assert 0.0 < apart < 2.0, "of 255: not the same pixels, and nearly"
    assert np.isfinite(predicted(policy, reduced).action).all()
    plain, beside = used(feed(early=early), raw()), used(feed(early=early, reduced=True), raw())
    np.testing.assert_array_equal(predicted(policy, plain).action, predicted(policy, beside).action)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("message, words", [
    (raw(encoding="16UC1"), "depth"), (CompressedImage(format="jpeg", data=b"no jpeg"), "cannot be decoded")])
@pytest.mark.parametrize("reduced", [False, True])
def test_what_cannot_be_used_is_said_when_it_is_used_and_the_next_frame_is_good(feed, early, message, words, reduced):
    source = feed(early, reduced)
    for _ in range(2):
        with pytest.raises(ObservationError, match=f"camera front.*{words}"):
            used(source, message)
    assert used(source, raw()).shape == SMOOTH.shape


@pytest.mark.parametrize("early", [False, True])
def test_a_frame_is_converted_early_once_or_when_it_is_used(early):
    calls = []

    def convert(message, view):
        calls.append(view)
        return message
    frame = CameraImage("picture", "front", convert, early)
    assert calls == (["front"] if early else [])
    assert frame.image("front") == "picture" and calls == ["front"]


def sent_by(message, node, stamp):
    message.header.stamp = rospy.Time.from_sec(stamp)
    message._connection_header = {"callerid": node}
    return message


def test_images_of_two_publishers_of_a_topic_are_never_mixed_and_both_are_named(feed, monkeypatch):
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(camera_feed.time, "monotonic", lambda: clock.now)
    made = feed()
    for tick in range(4):
        clock.now += 0.02
        for node, pixels in (("/camera_a", SMOOTH), ("/camera_b", 255 - SMOOTH)):
            made._on_image(sent_by(raw(pixels), node, NOW - 0.1 + 0.01 * tick), "front")
            found, problem = made.latest()
            if tick:
                assert found is None and "images of /front (view front) are published by /camera_a and by /camera_b" in problem
    assert made.sync.received["front"] == 4, "only those of the first"
    clock.now += 2.5
    made._on_image(sent_by(raw(), "/camera_a", NOW - 0.05), "front")
    found, problem = made.latest()
    assert found is not None and problem == "", "once the other has ended"


@pytest.mark.parametrize("pause, source, forgotten", [
    (0.1, "/camera", []), (1.5, "/camera", ["front"]), (2.5, "/other", ["front"])])
def test_after_an_outage_the_serial_number_is_asked_for_anew(feed, monkeypatch, pause, source, forgotten):
    made, now, asked = feed(), [50.0], []
    monkeypatch.setattr(camera_feed.time, "monotonic", lambda: now[0])
    made._identity = SimpleNamespace(forget=asked.append, problem=lambda: "")
    for who in ("/camera", source):
        message = raw()
        message._connection_header = {"callerid": who}
        made._on_image(message, "front")
        now[0] += pause
    assert asked == forgotten
