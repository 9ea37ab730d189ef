"""The markers' node on a real graph: an inactive arm is shown where it is, an active one also where it is commanded."""
from __future__ import annotations

import sys

from hybridvla_core.paths import ROOT


def test_the_arm_is_shown_inactive_and_active(rig):
    import rospy
    from visualization_msgs.msg import MarkerArray

    seen = {}
    process = rig.graph.start([sys.executable, str(ROOT / "nodes/markers_node"), "_robot_config:=config/robots/sim_fr3.yaml"],
                              "markers.log")
    subscriber = rospy.Subscriber("/hybridvla/view/markers", MarkerArray,
                                  lambda message: seen.update(names={marker.ns for marker in message.markers}))
    try:
        rig.until(lambda: "measured/arm" in seen.get("names", ()), "the measured arm", 30)
        rig.begin()
        rig.until(lambda: {"commanded/arm", "target/arm", "workspace/arm"} <= seen["names"], "the commanded arm")
        rig.instruct("left", False)
        rig.until(lambda: {"diffusion/arm", "action/arm"} <= seen["names"], "a proposal")
        assert process.poll() is None
    finally:
        subscriber.unregister()
        rig.graph.end(process)
