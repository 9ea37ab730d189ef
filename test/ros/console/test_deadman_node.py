"""The dead-man node over ROS: held, released, silent, and nonsense in its parameters."""
from __future__ import annotations

import subprocess
import sys
import time

import pytest
import rospy
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from hybridvla_core.paths import ROOT

NODE = ROOT / "nodes" / "deadman_node"


@pytest.fixture
def deadman(bench):
    process = bench.graph.start([sys.executable, str(NODE), "__name:=deadman_test", "_source:=gamepad", "_button:=4",
                                 "/hybridvla/safety/deadman:=/deadman_test/held"], "deadman.log")
    heard = []
    ear = rospy.Subscriber("/deadman_test/held", Bool, heard.append, queue_size=10)
    yield heard
    ear.unregister()
    bench.graph.end(process)


def said(heard, value):
    heard.clear()
    deadline = time.monotonic() + 15.0
    while not heard or heard[-1].data is not value:
        assert time.monotonic() < deadline, f"{value} was not said"
        time.sleep(0.01)


def test_held_while_pressed_and_released_by_the_button_or_by_silence(deadman):
    said(deadman, False)
    pad = rospy.Publisher("/joy", Joy, queue_size=1)
    pressed = [True]
    timer = rospy.Timer(rospy.Duration(0.02), lambda _event: pad.publish(Joy(buttons=[0, 0, 0, 0, int(pressed[0])])))
    said(deadman, True)
    pressed[0] = False
    said(deadman, False)
    pressed[0] = True
    said(deadman, True)
    timer.shutdown()
    said(deadman, False)
    pad.unregister()


@pytest.mark.parametrize("arguments, words", [(["_source:=wheel"], "wheel"), (["_source:=pedal"], "~device"),
                                              (["_source:=gamepad", "_button:=left"], "button")])
def test_a_wrong_parameter_is_named(bench, arguments, words):
    done = subprocess.run([sys.executable, str(NODE), f"__name:=refused_{time.monotonic_ns()}", *arguments],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and words in done.stdout + done.stderr and "Traceback" not in done.stderr
