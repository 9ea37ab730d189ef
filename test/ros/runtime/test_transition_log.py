"""The filter's log tells a session's story: one line for each change of state, with the sentence of the status."""
from __future__ import annotations

import rospy
from dynamic_reconfigure.client import Client
from geometry_msgs.msg import PoseStamped
from rosgraph_msgs.msg import Log


def lines_of(heard):
    return [message.msg for message in heard if message.name == "/safety_filter_node" and " -> " in message.msg]


def test_each_change_of_state_is_one_line_with_its_reason(rig):
    heard = []
    subscriber = rospy.Subscriber("/rosout", Log, heard.append)
    try:
        rig.until(lambda: subscriber.get_num_connections(), "the log's connection")
        rig.begin()
        assert rig.stop().success
        rig.until(lambda: rig.state("STOPPED"), "STOPPED")
        rig.until(lambda: any("-> STOPPED" in line for line in lines_of(heard)), "a line of the log")
        assert rig.resume().success
        rig.until(lambda: any(line.startswith("STOPPED -> ") for line in lines_of(heard)), "a line of the log")
        rig.until(lambda: not rig.state("STOPPED"), "the end of STOPPED")
    finally:
        subscriber.unregister()
        rig.activate(False)
    lines = lines_of(heard)
    begin = next(index for index, line in enumerate(lines) if line.startswith("INACTIVE -> "))
    lines = lines[begin:]                   # earlier lines come from the bench's way to rest
    assert len([line for line in lines if "-> STOPPED" in line]) == 1
    assert all(len(line.partition(": ")[2]) > 3 for line in lines), lines


def test_a_dry_run_goes_on_beside_another_commander_and_names_it(rig):
    heard = []
    subscriber = rospy.Subscriber("/rosout", Log, heard.append)
    client = Client("/safety_filter_node", timeout=20)
    rig.until(lambda: subscriber.get_num_connections(), "the log's connection")
    client.update_configuration({"dry_run": True})
    other = rospy.Publisher("/cartesian_impedance_example_controller/equilibrium_pose", PoseStamped, queue_size=1)
    try:
        rig.until(lambda: any("is also published by" in message.msg for message in heard), "the other's name in the log")
        rig.begin()
        end = rospy.get_time() + 1.5        # three checks of the graph
        while rospy.get_time() < end:
            assert not rig.state("STOPPED"), rig.status.message
            rospy.sleep(0.05)
        assert rig.status.dry_run
    finally:
        rig.activate(False)
        other.unregister()
        rospy.sleep(1.2)                    # until the filter has noticed that the other publisher is gone
        client.update_configuration({"dry_run": False})
        subscriber.unregister()
        client.close()
