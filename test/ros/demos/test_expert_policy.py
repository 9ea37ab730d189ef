"""The task's expert on the ROS graph, behind the real policy node: `sim.launch expert:=true`."""
from __future__ import annotations

import json
import sys

import numpy as np

from hybridvla_core.paths import ROOT

TEXT = "put the green block on the red pad"


def test_the_expert_drives_to_what_the_rig_says_and_refuses_what_the_task_does_not_know(rig):
    import rospy

    rig.kill_policy()
    rig.policy = rig.graph.start([sys.executable, str(ROOT / "nodes/expert_policy"), "__name:=policy_node",
                                  "_robot_config:=config/robots/sim_fr3.yaml", "_policy_config:=config/policies/tiny.yaml"],
                                 "expert.log")
    rig.heartbeat = None
    rig.until(lambda: rig.heartbeat is not None, "a heartbeat", 40)
    rospy.wait_for_service("/hybridvla/policy/set_instruction", 20)
    wanted = json.loads(rig.report(TEXT).report)["expert"]
    assert "expert" not in json.loads(rig.report("").report)
    assert not rig.report("open the drawer").success
    begin = json.loads(rig.report("").report)["world"]["tool"]
    rig.proposals.clear()
    assert rig.instruct(TEXT, False).success
    rig.begin()
    rig.until(lambda: rig.proposals, "a proposal", 20)
    point = rig.proposals[0].targets[0].target.pose.position
    np.testing.assert_allclose([point.x, point.y, point.z], np.add(begin, wanted[:3]), atol=0.01)
    rig.until(lambda: np.linalg.norm(np.subtract(json.loads(rig.report("").report)["world"]["tool"], begin)) > 0.05, "motion", 20)
    rig.kill_policy()
