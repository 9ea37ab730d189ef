"""The dead-man switch as the filter wants it: a Bool at 50 Hz that is true only while a button is held and its device is present
and speaks. SpaceMouse (spacenav_node) and gamepad (joy_node) come as sensor_msgs/Joy; a foot pedal is read from its device."""
from __future__ import annotations

import glob
import os
import select
import struct
import time
from typing import Callable, Iterable, Tuple, Union

import rospy
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots.graph_names import DEADMAN
from hybridvla_ros.runtime.node_support import number_parameter
from hybridvla_ros.runtime.workers import start_worker

PUBLISH_HZ = 50.0
SILENCE_S = 0.25                 # silence of a Joy topic that counts as released
TOPICS = {"spacemouse": "/spacenav/joy", "gamepad": "/joy"}
BUTTONS = {"spacemouse": 0, "gamepad": 4, "pedal": -1}     # left button; left shoulder button; any key of the pedal
#: Paths of the devices' files, unless given. joy_node reads the first gamepad.
DEVICES = {"spacemouse": "/dev/input/by-id/*3Dconnexion*", "gamepad": "/dev/input/js0"}
#: How a launch chooses the device.
ARGUMENT = "deadman_device:= (device:= of deadman.launch)"
#: A held button must be pressed again after this long without any other sign of life of its device, s: a radio receiver stays
#: plugged in while its gamepad is out of range.
RENEW_S = 30.0
RETRY_S = 0.5                    # pause before a pedal that cannot be opened or read is tried again
#: struct input_event of the Linux kernel: seconds, microseconds, type, code, value.
EVENT = struct.Struct("llHHi")
SYNC_EVENT, KEY_EVENT = 0, 1
#: Codes of SYNC_EVENT: the end of a packet of events, and that the kernel's buffer was full and events are lost.
SYNC_REPORT, SYNC_DROPPED = 0, 3


def present(pattern: str) -> bool:
    """Tells whether the device's file exists. pattern: its path, or one with wildcards, of which one match is enough."""
    return any(True for _ in glob.iglob(pattern))


class JoyButton:
    """Held while the button is 1, messages keep coming, the device is present, and it gives signs of life.

    spacenav_node and joy_node repeat their last message for ever, even when the device is no longer present. So this class checks
    the device: when it is gone, or nothing of it has changed for `renew_s`, the button counts as released until pressed again.

    Args:
        button: Index in `sensor_msgs/Joy`.
        device: File of the device, see `present`.
        renew_s: Time, s, after which a button held without any other change of buttons or axes counts as released; 0: never.
    """

    def __init__(self, button: int, device: str, renew_s: float = 0.0, clock: Callable[[], float] = time.monotonic,
                 is_present: Callable[[str], bool] = present) -> None:
        self._button, self._device, self._renew_s = button, device, renew_s
        self._clock, self._is_present = clock, is_present
        self._pressed, self._at = False, float("-inf")
        self._last: Tuple[Tuple[int, ...], Tuple[float, ...]] = ((), ())
        self._changed_at = float("-inf")
        #: Why a button reported as held does not count, or an empty string. Kept until the button is seen released.
        self.problem = ""

    def update(self, buttons: Iterable[int], axes: Iterable[float] = ()) -> None:
        """Takes a message."""
        now, values = self._clock(), (tuple(buttons), tuple(axes))
        if values != self._last:
            self._last, self._changed_at = values, now
        self._pressed = self._button < len(values[0]) and values[0][self._button] == 1
        self._at = now
        if not self._pressed and self._is_present(self._device):
            self.problem = ""

    @property
    def held(self) -> bool:
        """Tells whether the button counts as held now."""
        now = self._clock()
        if not self._is_present(self._device):
            self.problem = (f"the device {self._device} is not there: plug it in and press the button again; if it has "
                            f"another file, name it with {ARGUMENT} or spacemouse_device:= of record.launch")
        elif self._pressed and self._renew_s and now - self._changed_at > self._renew_s:
            self.problem = (f"nothing of the device has changed for {self._renew_s:.0f} s, so it may be out of reach: release "
                            "the button and press it again")
        return self._pressed and not self.problem and now - self._at < SILENCE_S


class PedalKeys:
    """Held while a key of the device is down. Bytes come from `/dev/input/...`.

    After a pedal was unplugged, or the kernel lost events, it counts as released until it is pressed anew.
    """

    def __init__(self, code: int) -> None:
        self._code = code
        self._down: set = set()
        self._torn = False             # whether the rest of a packet comes whose beginning is lost

    def feed(self, data: bytes) -> None:
        """Takes bytes. Only whole events count; repeats (value 2) change nothing."""
        for offset in range(0, len(data) - EVENT.size + 1, EVENT.size):
            _, _, kind, code, value = EVENT.unpack_from(data, offset)
            if kind == SYNC_EVENT and code == SYNC_DROPPED:
                self.lost()            # the release may be among what is lost
                self._torn = True
            elif kind == SYNC_EVENT and code == SYNC_REPORT:
                self._torn = False
            elif kind == KEY_EVENT and not self._torn and self._code in (-1, code):
                if value == 0:
                    self._down.discard(code)
                elif value == 1:
                    self._down.add(code)

    def lost(self) -> None:
        """Forgets which keys are down."""
        self._down.clear()
        self._torn = False

    @property
    def held(self) -> bool:
        return bool(self._down)


def read_pedal(device: str, keys: PedalKeys) -> None:
    """Reads a device for ever; while it is absent the keys are up."""
    while not rospy.is_shutdown():
        try:
            handle = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            keys.lost()
            rospy.logwarn_throttle(5.0, "the pedal %s cannot be read (%s); is it plugged in, and are you in group input?",
                                   device, error.strerror)
            time.sleep(RETRY_S)
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
        time.sleep(RETRY_S)


def main() -> None:
    source = str(rospy.get_param("~source", "")).strip()
    if source not in BUTTONS:
        raise HybridVLAError(f"parameter ~source is {source!r}; use one of {', '.join(BUTTONS)}")
    button = int(number_parameter("button", -1))
    button = BUTTONS[source] if button < 0 else button
    device = str(rospy.get_param("~device", "")).strip()
    if source == "pedal":
        if not device:
            raise HybridVLAError(f"parameter ~device is not set; name the pedal's file under /dev/input/by-id with {ARGUMENT}")
        pedal = PedalKeys(button)
        start_worker("reading the pedal", read_pedal, device, pedal)
        publish(source, button, pedal)
        return
    renew_s = number_parameter("renew_s", RENEW_S)
    if not 0.0 <= renew_s <= 3600.0:
        raise HybridVLAError(f"parameter ~renew_s is {renew_s}; use 0 (never) to 3600 s")
    switch = JoyButton(button, device or DEVICES[source], renew_s)
    rospy.Subscriber(TOPICS[source], Joy, lambda message: switch.update(message.buttons, message.axes), queue_size=1,
                     tcp_nodelay=True)
    publish(source, button, switch)


def publish(source: str, button: int, switch: Union[JoyButton, PedalKeys]) -> None:
    """Publishes whether the switch is held, until the node ends."""
    publisher = rospy.Publisher(DEADMAN, Bool, queue_size=1, tcp_nodelay=True)
    rospy.loginfo("dead-man switch: %s, button %d", source, button)
    said = ""
    while not rospy.is_shutdown():
        publisher.publish(Bool(switch.held))
        problem = getattr(switch, "problem", "")
        if problem and problem != said:
            rospy.logwarn("dead-man switch: %s", problem)
        said = problem
        time.sleep(1.0 / PUBLISH_HZ)
