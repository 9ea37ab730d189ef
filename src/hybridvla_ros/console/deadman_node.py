"""The dead-man switch as the filter wants it: a Bool at 50 Hz that is true only while a button is held and its device
speaks. SpaceMouse (spacenav_node) and gamepad (joy_node) come as sensor_msgs/Joy; a foot pedal is read from its device."""
from __future__ import annotations

import os
import select
import struct
import threading
import time
from typing import Callable

import rospy
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.runtime.node_support import number_parameter

PUBLISH_HZ = 50.0
SILENCE_S = 0.25                 # of a Joy topic: released
TOPICS = {"spacemouse": "/spacenav/joy", "gamepad": "/joy"}
BUTTONS = {"spacemouse": 0, "gamepad": 4, "pedal": -1}     # left button; left shoulder button; any key of the pedal
#: struct input_event of the Linux kernel: seconds, microseconds, type, code, value.
EVENT = struct.Struct("llHHi")
KEY_EVENT = 1


class JoyButton:
    """Held while the button is 1 and messages keep coming: a device that is gone releases it."""

    def __init__(self, button: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._button, self._clock = button, clock
        self._pressed, self._at = False, float("-inf")

    def update(self, buttons: object) -> None:
        values = list(buttons)
        self._pressed = self._button < len(values) and values[self._button] == 1
        self._at = self._clock()

    @property
    def held(self) -> bool:
        return self._pressed and self._clock() - self._at < SILENCE_S


class PedalKeys:
    """Held while a key of the device is down. Bytes come from `/dev/input/...`; an unplugged pedal is released."""

    def __init__(self, code: int) -> None:
        self._code = code
        self._down: set = set()

    def feed(self, data: bytes) -> None:
        """Whole events only; repeats (value 2) change nothing."""
        for offset in range(0, len(data) - EVENT.size + 1, EVENT.size):
            _, _, kind, code, value = EVENT.unpack_from(data, offset)
            if kind == KEY_EVENT and self._code in (-1, code):
                if value == 0:
                    self._down.discard(code)
                elif value == 1:
                    self._down.add(code)

    def lost(self) -> None:
        self._down.clear()

    @property
    def held(self) -> bool:
        return bool(self._down)


def read_pedal(device: str, keys: PedalKeys) -> None:
    """Read a device for ever; whenever it is not there the keys are up."""
    while not rospy.is_shutdown():
        try:
            handle = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            keys.lost()
            rospy.logwarn_throttle(5.0, "the pedal %s cannot be read (%s); is it plugged in, and are you in group input?",
                                   device, error.strerror)
            time.sleep(0.5)
            continue
        try:
            while not rospy.is_shutdown():
                if select.select([handle], [], [], 0.2)[0]:
                    data = os.read(handle, 64 * EVENT.size)
                    if not data:
                        break
                    keys.feed(data)
        except OSError as error:
            rospy.logwarn("the pedal %s is gone (%s)", device, error.strerror)
        finally:
            keys.lost()
            os.close(handle)


def main() -> None:
    source = str(rospy.get_param("~source", "")).strip()
    if source not in BUTTONS:
        raise HybridVLAError(f"parameter ~source is {source!r}; use one of {', '.join(BUTTONS)}")
    button = int(number_parameter("button", -1))
    button = BUTTONS[source] if button < 0 else button
    if source == "pedal":
        device = str(rospy.get_param("~device", "")).strip()
        if not device:
            raise HybridVLAError("parameter ~device is not set; name the pedal's file under /dev/input/by-id")
        switch = PedalKeys(button)
        threading.Thread(target=read_pedal, args=(device, switch), daemon=True).start()
    else:
        switch = JoyButton(button)
        rospy.Subscriber(TOPICS[source], Joy, lambda message: switch.update(message.buttons), queue_size=1, tcp_nodelay=True)
    publisher = rospy.Publisher("/hybridvla/safety/deadman", Bool, queue_size=1, tcp_nodelay=True)
    rospy.loginfo("dead-man switch: %s, button %d", source, button)
    while not rospy.is_shutdown():
        publisher.publish(Bool(switch.held))
        time.sleep(1.0 / PUBLISH_HZ)
