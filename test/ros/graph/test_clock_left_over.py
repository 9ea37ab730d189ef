"""A master on which an earlier session left /use_sim_time true although nobody publishes /clock: the nodes name it."""
from __future__ import annotations

import subprocess
import sys
import threading
import xmlrpc.client

import pytest
from rosmaster.master import Master

from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.ros_clock import STILL_S, StoppedClock

# Listens on wall time for what a node says about itself, and prints each sentence once.
LISTENER = """
import sys, time, rospy
from diagnostic_msgs.msg import DiagnosticArray
rospy.init_node("listener", disable_rostime=True)
seen = set()
def on(message):
    for status in message.status:
        seen.add(status.name + "|" + status.message)
rospy.Subscriber("/diagnostics", DiagnosticArray, on)
deadline = time.monotonic() + float(sys.argv[1])
while time.monotonic() < deadline and not any("/use_sim_time" in text for text in seen):
    time.sleep(0.1)
print("\\n".join(sorted(seen)))
"""


@pytest.fixture
def left_over(monkeypatch):
    """Yield a master with the parameter set, separate from the graph of the other tests."""
    master = Master(port=0, num_workers=1)
    master.start()
    for _ in range(100):
        if master.uri:
            break
        threading.Event().wait(0.05)
    for key, value in (("ROS_MASTER_URI", master.uri), ("ROS_IP", "127.0.0.1"), ("PYTHONUNBUFFERED", "1")):
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("ROS_HOSTNAME", raising=False)
    xmlrpc.client.ServerProxy(master.uri).setParam("/test", "/use_sim_time", True)
    yield master
    master.stop()


@pytest.mark.long
def test_a_node_names_the_parameter_in_its_log_and_its_diagnostics(left_over, tmp_path):
    command = [sys.executable, str(ROOT / "nodes/safety_filter_node"), "__name:=safety_filter_node", "_scheduler:=ordinary",
               "_robot_config:=config/robots/sim_fr3.yaml", "_require_policy:=false"]
    with open(tmp_path / "log", "wb") as stream:
        node = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        heard = subprocess.run([sys.executable, "-c", LISTENER, "90"], capture_output=True, text=True, timeout=180, check=False)
    finally:
        node.terminate()
        node.wait(30)
    log = (tmp_path / "log").read_text(errors="replace")
    assert "safety_filter_node: filter|/use_sim_time is true and nothing comes on /clock" in heard.stdout, heard.stdout + log
    assert "rosparam set /use_sim_time false" in log


def test_a_clock_that_goes_on_and_wall_time_are_no_problem():
    now = [0.0]
    assert StoppedClock(lambda: False, lambda: 0.0, lambda: now[0]).look() == ""
    clock = StoppedClock(lambda: True, lambda: 100.0 + now[0], lambda: now[0])
    for tick in range(20):
        now[0] = tick * STILL_S / 2
        assert clock.look() == ""


def test_never_begun_and_paused_are_told_apart_and_end():
    now, stamp = [0.0], [0.0]
    clock = StoppedClock(lambda: True, lambda: stamp[0], lambda: now[0])
    assert clock.look() == ""
    now[0] = STILL_S + 1.0
    assert "nothing comes on /clock" in clock.look()
    stamp[0] = 5.0
    assert clock.look() == "" and clock.problem == ""
    now[0] += STILL_S + 1.0
    assert "has stood still for 4 s" in clock.look()
