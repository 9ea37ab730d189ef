"""A policy in a process of its own that tests stop and kill: it sends heartbeats at 20 Hz and a far target twice a second."""
from __future__ import annotations

import time

import numpy as np
import rospy

from hybridvla.msg import ActionProposal, PolicyHeartbeat
from hybridvla_core.contracts import ArmTarget, DeltaBase, Heartbeat, PolicyState, Pose, Proposal
from hybridvla_ros.messages.conversions import heartbeat_message, proposal_message

#: Two far tool positions, m, in the arm's base frame. The policy asks for them in turn.
TARGETS = ([0.5, 0.3, 0.25], [0.5, -0.3, 0.25])


def main():
    rospy.init_node("talker")
    beats = rospy.Publisher("/hybridvla/policy/heartbeat", PolicyHeartbeat, queue_size=2)
    proposals = rospy.Publisher("/hybridvla/policy/proposal", ActionProposal, queue_size=2)
    epoch, count = int(time.monotonic() * 1e6), 0
    while not rospy.is_shutdown():
        count += 1
        beats.publish(heartbeat_message(Heartbeat(epoch, count // 10, 1, PolicyState.INFERRING)))
        if count % 10 == 0:
            pose = Pose(np.array(TARGETS[count // 60 % 2]), np.array([1.0, 0.0, 0.0, 0.0]))
            target = ArmTarget("arm", "fr3_link0", pose, time.time(), pose, DeltaBase.COMMANDED, 1.0)
            proposals.publish(proposal_message(Proposal(time.time(), epoch, count // 10, 1, "go", 10.0, (target,))))
        time.sleep(0.05)


if __name__ == "__main__":
    main()
