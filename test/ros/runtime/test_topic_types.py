"""A topic with another type than a node accepts: rospy is silent about it, and the node names both types."""
from __future__ import annotations

import pytest
import rospy
from sensor_msgs.msg import CompressedImage, Image

from hybridvla_ros.runtime import graph_watch
from hybridvla_ros.runtime.graph_watch import GraphWatch, wrong_types
from hybridvla_ros.runtime.workers import Faults

TOPIC, RAW, JPEG = "/camera_front/color/image_raw", "sensor_msgs/Image", "sensor_msgs/CompressedImage"


def test_both_types_and_the_publisher_are_named():
    text = wrong_types({TOPIC: JPEG}, [(TOPIC, ["/camera_driver"])], [(TOPIC, RAW, 0)])
    assert text.startswith(f"{TOPIC} carries {JPEG}, published by /camera_driver, and this node takes {RAW}")


@pytest.mark.parametrize("types, published, taken", [
    ({TOPIC: RAW}, [(TOPIC, ["/a"])], [(TOPIC, RAW, 0)]),
    ({TOPIC: JPEG}, [], [(TOPIC, RAW, 0)]),                            # from a publisher that has gone
    ({TOPIC: JPEG}, [(TOPIC, ["/a"])], [(TOPIC, RAW, 1)]),             # what arrives is right, whatever the master was told
    ({TOPIC: JPEG}, [(TOPIC, ["/a"])], [(TOPIC, "*", 0)]),
    ({TOPIC: "*"}, [(TOPIC, ["/a"])], [(TOPIC, RAW, 0)]),
    ({}, [(TOPIC, ["/a"])], [(TOPIC, RAW, 0)])])
def test_what_is_right_or_cannot_be_known_is_no_fault(types, published, taken):
    assert wrong_types(types, published, taken) == ""


@pytest.mark.long
def test_a_node_on_a_graph_names_it_and_forgets_it_when_it_is_mended(bench, monkeypatch):
    faults = Faults()
    monkeypatch.setattr(graph_watch, "FAULTS", faults)
    ear = rospy.Subscriber("/mismatched", Image, lambda message: None)
    wrong = rospy.Publisher("/mismatched", CompressedImage, queue_size=1)
    watch = GraphWatch()
    try:
        bench.until(lambda: f"/mismatched carries {JPEG}" in faults.problem, "the fault", 20)
        assert f"this node takes {RAW}" in faults.problem
        wrong.unregister()
        bench.until(lambda: "/mismatched" not in faults.problem, "the end of the fault", 20)
    finally:
        watch._looks.end()
        ear.unregister()
