"""A thread that publishes while its node ends: rospy closes the topics before is_shutdown() is true."""
from __future__ import annotations

import subprocess
import sys

import pytest
import rospy
from std_msgs.msg import String

from hybridvla_ros.runtime.node_support import node_ending, publish_unless_ending

# rospy runs these hooks in the order of registration, so this one finds the topics closed.
ENDING_NODE = """
import rospy
from std_msgs.msg import String
from hybridvla_ros.runtime.node_support import publish_unless_ending
rospy.init_node("ending", disable_signals=True)
publisher = rospy.Publisher("/ending", String, queue_size=1)
def late(_reason):
    try:
        publisher.publish(String("x"))
    except rospy.ROSException as error:
        print("rospy:", error, rospy.is_shutdown())
    print("helper:", publish_unless_ending(publisher, String("x")))
print("before:", publish_unless_ending(publisher, String("x")))
rospy.core.add_preshutdown_hook(late)
rospy.signal_shutdown("test")
"""


def test_a_topic_closed_by_the_nodes_end_is_no_error(bench):
    done = subprocess.run([sys.executable, "-c", ENDING_NODE], capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stdout.splitlines() if ":" in line]
    assert said == ["before: True", "rospy: publish() to a closed topic False", "helper: False"], done.stdout + done.stderr


def test_a_topic_closed_by_anybody_else_is_one(bench):
    publisher = rospy.Publisher("/not_ending", String, queue_size=1)
    publisher.unregister()
    with pytest.raises(rospy.ROSException):
        publish_unless_ending(publisher, String("x"))
    assert not node_ending()
