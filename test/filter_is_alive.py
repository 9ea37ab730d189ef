#!/usr/bin/env python3
"""rostest: the filter publishes its status, is inactive, and its services refuse nonsense."""
import unittest

import rospy
import rostest
from std_srvs.srv import SetBool, Trigger

from hybridvla.msg import SafetyStatus


class FilterIsAlive(unittest.TestCase):
    def test_inactive_at_start(self):
        status = rospy.wait_for_message("/hybridvla/safety/status", SafetyStatus, timeout=40)
        self.assertEqual(status.state, SafetyStatus.INACTIVE)
        self.assertEqual(status.epoch, 0)

    def test_resume_needs_a_stop(self):
        rospy.wait_for_service("/hybridvla/safety/resume", 40)
        self.assertFalse(rospy.ServiceProxy("/hybridvla/safety/resume", Trigger)().success)

    def test_activation_and_back(self):
        rospy.wait_for_service("/hybridvla/safety/activate", 30)
        rospy.wait_for_message("/joint_states", rospy.AnyMsg, timeout=40)
        activate = rospy.ServiceProxy("/hybridvla/safety/activate", SetBool)
        rospy.sleep(0.5)
        self.assertTrue(activate(True).success)
        self.assertTrue(activate(False).success)


if __name__ == "__main__":
    rospy.init_node("filter_is_alive")
    rostest.rosrun("hybridvla", "filter_is_alive", FilterIsAlive)
