"""The dead-man node: its switches alone; over ROS held, released and silent; and nonsense in its parameters."""
from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import rospy
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from hybridvla_core.paths import ROOT
from hybridvla_ros.console import deadman_node
from hybridvla_ros.console.deadman_node import JoyButton, PedalKeys, read_pedal

NODE = ROOT / "nodes" / "deadman_node"
RETRY_S = 0.05


@pytest.fixture
def device(tmp_path):
    """Return the gamepad's device file."""
    file = tmp_path / "js0"
    file.touch()
    return file


@pytest.fixture
def deadman(bench, device):
    process = bench.graph.start([sys.executable, str(NODE), "__name:=deadman_test", "_source:=gamepad", "_button:=4",
                                 f"_device:={device}", "_renew_s:=0",
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


def test_an_unplugged_device_is_released_although_its_last_message_is_repeated(deadman, device):
    pad = rospy.Publisher("/joy", Joy, queue_size=1)
    pressed = [True]
    timer = rospy.Timer(rospy.Duration(0.02), lambda _event: pad.publish(Joy(buttons=[0, 0, 0, 0, int(pressed[0])])))
    said(deadman, True)
    device.unlink()                  # joy_node keeps reporting that the button is held
    said(deadman, False)
    device.touch()
    deadman.clear()
    time.sleep(1.0)
    assert deadman and not any(message.data for message in deadman)      # plugged in again: released until it is pressed anew
    pressed[0] = False
    time.sleep(0.5)
    pressed[0] = True
    said(deadman, True)
    timer.shutdown()
    pad.unregister()


def test_a_device_that_gives_no_sign_of_life_is_released_until_pressed_anew():
    now = [0.0]
    switch = JoyButton(0, "device", 30.0, lambda: now[0], lambda _device: True)

    def hold(seconds, buttons=(1, 0), axes=lambda: (0.0,)):
        held = []
        for _ in range(int(seconds * 10)):
            now[0] += 0.1
            switch.update(buttons, axes())
            held.append(switch.held)
        return held

    assert all(hold(29.0)) and not any(hold(5.0)[2:-1][15:])
    assert "press it again" in switch.problem and not any(hold(5.0, axes=lambda: (now[0],)))     # a moving stick is not enough
    assert not any(hold(0.2, (0, 0)))
    assert all(hold(100.0, axes=lambda: (now[0],)))          # its sticks move


@pytest.mark.parametrize("arguments, words", [(["_source:=wheel"], "wheel"), (["_source:=pedal"], "~device"),
                                              (["_source:=gamepad", "_button:=left"], "button"),
                                              (["_source:=gamepad", "_renew_s:=-1"], "renew_s")])
def test_a_wrong_parameter_is_named(bench, arguments, words):
    done = subprocess.run([sys.executable, str(NODE), f"__name:=refused_{time.monotonic_ns()}", *arguments],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and words in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_a_button_counts_only_while_its_device_speaks():
    now = [0.0]
    button = JoyButton(1, "device", clock=lambda: now[0], is_present=lambda _device: True)
    button.update([0, 1])
    assert button.held
    now[0] = 0.3
    assert not button.held
    button.update([1, 0])
    assert not button.held
    button.update([])
    assert not button.held


def event(kind, code, value):
    return struct.pack("llHHi", 0, 0, kind, code, value)


def test_a_pedal_is_held_while_its_key_is_down_and_until_it_is_lost():
    keys = PedalKeys(48)
    keys.feed(event(1, 30, 1) + event(4, 4, 458756))
    assert not keys.held
    keys.feed(event(1, 48, 1) + event(1, 48, 2))
    assert keys.held
    keys.feed(event(1, 48, 0))
    assert not keys.held
    keys.feed(event(1, 48, 1))
    keys.lost()
    assert not keys.held


def test_a_pedal_of_whose_events_some_are_lost_is_released_until_it_is_pressed_anew():
    press, release, report, dropped = event(1, 48, 1), event(1, 48, 0), event(0, 0, 0), event(0, 3, 0)
    keys = PedalKeys(48)
    keys.feed(press + report)
    assert keys.held
    keys.feed(dropped)
    assert not keys.held, "its release may be lost"
    keys.feed(press + report + event(1, 48, 2) + report)
    assert not keys.held, "the rest of a torn packet, and a repeat, are no press"
    keys.feed(release + report + press + report)
    assert keys.held
    keys.feed(dropped)
    keys.lost()
    keys.feed(press)
    assert keys.held, "a device opened anew begins with a whole packet"


class Pedal:
    """The keys of a pedal, the thread that reads them from its device, and what that thread warns of."""

    def __init__(self, monkeypatch, device):
        self.device, self.keys, self.warnings, self.ended = device, PedalKeys(48), [], threading.Event()
        monkeypatch.setattr(deadman_node, "RETRY_S", RETRY_S)
        # Throttling needs a ROS clock.
        monkeypatch.setattr(deadman_node, "rospy", SimpleNamespace(
            is_shutdown=self.ended.is_set, logwarn=self.warn, logwarn_throttle=lambda _period, *said: self.warn(*said)))
        self.thread = threading.Thread(target=read_pedal, args=(str(device), self.keys), daemon=True)
        self.thread.start()

    def warn(self, text, *values):
        self.warnings.append(text % values)

    def until(self, condition, what):
        deadline = time.monotonic() + 15.0
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come; {self.warnings[-3:]}"
            time.sleep(0.01)


@pytest.fixture
def pedal(monkeypatch, tmp_path):
    """Return a pedal that is not there yet, and of which the node reads."""
    pedal = Pedal(monkeypatch, tmp_path / "pedal")
    yield pedal
    alive = pedal.thread.is_alive()
    pedal.ended.set()
    pedal.thread.join(15.0)
    assert alive and not pedal.thread.is_alive()


def test_a_pedal_unplugged_with_its_key_down_is_released_and_is_read_again_once_it_is_back(pedal):
    os.mkfifo(pedal.device)
    for _ in range(2):
        plug = os.open(pedal.device, os.O_RDWR)      # as reader and writer, so that it need not wait for the node
        os.write(plug, event(1, 48, 1) + event(0, 0, 0))
        pedal.until(lambda: pedal.keys.held, "the press")
        time.sleep(0.3)
        assert pedal.keys.held, "silence is no release"
        os.close(plug)
        pedal.until(lambda: not pedal.keys.held, "the release")


def test_keys_of_a_pedal_that_cannot_be_opened_are_up_and_the_warning_names_it(pedal):
    pedal.keys.feed(event(1, 48, 1))
    pedal.until(lambda: not pedal.keys.held, "the release")
    pedal.until(lambda: pedal.warnings, "a warning")
    assert f"{pedal.device} cannot be read" in pedal.warnings[0] and "plugged in" in pedal.warnings[0]


def test_keys_of_a_pedal_that_cannot_be_read_are_up_and_it_is_not_tried_again_all_the_time(pedal):
    pedal.device.mkdir()                 # can be opened; an error comes with each reading
    pedal.until(lambda: [text for text in pedal.warnings if f"{pedal.device} is gone" in text], "a warning")
    pedal.keys.feed(event(1, 48, 1))
    pedal.until(lambda: not pedal.keys.held, "the release")
    begin, count = time.monotonic(), len(pedal.warnings)
    time.sleep(0.3)
    assert len(pedal.warnings) - count <= 1 + (time.monotonic() - begin) / RETRY_S
