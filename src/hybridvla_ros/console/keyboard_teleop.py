"""A keyboard as a SpaceMouse: `rosrun hybridvla keyboard_teleop` in its own terminal, with `record.launch teleop:=keyboard`.

A terminal only reports that a key came, and repeats it while it is held. So a key moves the arm for a moment, and a held key for
as long as it repeats; the dead-man switch is released a little later, or at once by the space bar or any unassigned key.
"""
from __future__ import annotations

import math
import sys
import time
from typing import Callable, Dict, Optional, Tuple

import rospy
from geometry_msgs.msg import Twist
from sensor_msgs.msg import Joy

from hybridvla_ros.console.episode_keys import QUIT, KeyReader

#: Key to axis (x, y, z forwards, left, up; then turns about them) and direction.
KEYS: Dict[str, Tuple[int, float]] = {
    "w": (0, 1.0), "s": (0, -1.0), "a": (1, 1.0), "d": (1, -1.0), "r": (2, 1.0), "f": (2, -1.0),
    "u": (3, 1.0), "o": (3, -1.0), "i": (4, 1.0), "k": (4, -1.0), "j": (5, 1.0), "l": (5, -1.0)}
GRIPPER, FASTER, SLOWER = "g", "+", "-"
#: How long a key moves the arm, and how long the dead-man switch counts as held after it, s. Keys repeat about 30 times a second,
#: the first time after a quarter to half a second.
MOVES_S, HELD_S, CLICK_S = 0.12, 0.6, 0.15
SPEEDS = (0.1, 0.2, 0.35, 0.6, 1.0)
PERIOD_S = 1.0 / 30.0
HELP = ("hold a key to move:  w/s forwards, back   a/d left, right   r/f up, down\n"
        "                     u/o roll   i/k pitch   j/l yaw   g gripper   +/- speed   space stop   q quit")


class Keyboard:
    """Turns keys into deflections and buttons, and ends them. Times are monotonic s."""

    def __init__(self) -> None:
        self._axis: Optional[int] = None
        self._direction = 0.0
        self._moved_at = self._held_at = self._clicked_at = -math.inf
        self._speed = 2

    @property
    def speed(self) -> float:
        return SPEEDS[self._speed]

    def press(self, key: str, now: float) -> bool:
        """Takes a key. Returns whether it is an assigned key; any other key releases everything."""
        key = key.lower()
        if key in KEYS:
            self._axis, self._direction = KEYS[key]
            self._moved_at = self._held_at = now
        elif key == GRIPPER:
            self._held_at = now
            if now - self._clicked_at > 2.0 * CLICK_S:      # a held key would open and close in turn
                self._clicked_at = now
        elif key in (FASTER, SLOWER):
            self._speed = min(max(self._speed + (1 if key == FASTER else -1), 0), len(SPEEDS) - 1)
        else:
            self._moved_at = self._held_at = self._clicked_at = -math.inf
            return key == " "
        return True

    def twist(self, now: float) -> Tuple[float, ...]:
        """Returns six deflections in -1 to 1."""
        values = [0.0] * 6
        if self._axis is not None and now - self._moved_at <= MOVES_S:
            values[self._axis] = self._direction * self.speed
        return tuple(values)

    def buttons(self, now: float) -> Tuple[int, int]:
        """Returns dead-man switch and gripper button, each 1 when pressed and 0 when not."""
        return int(now - self._held_at <= HELD_S), int(0.0 <= now - self._clicked_at <= CLICK_S)


def loop(reader: KeyReader, publish: Callable[[Tuple[float, ...], Tuple[int, int]], None], say: Callable[[str], None],
         clock: Callable[[], float] = time.monotonic) -> None:
    """Runs until q, the end of the input, or the end of ROS."""
    keyboard, due = Keyboard(), clock()
    say(HELP)
    while not rospy.is_shutdown():
        key = reader.read(max(due - clock(), 0.0))
        now = clock()
        if key is not None:
            if key == "" or key in QUIT:
                return
            speed = keyboard.speed
            if not keyboard.press(key, now):
                say(HELP)
            elif keyboard.speed != speed:
                say(f"speed {keyboard.speed:.0%}")
        if key is None or now >= due:
            publish(keyboard.twist(now), keyboard.buttons(now))
            due = now + PERIOD_S


def main() -> None:
    if not sys.stdin.isatty():
        sys.exit("keyboard_teleop needs a terminal: run it by hand, not from a launch file")
    rospy.init_node("keyboard_teleop", anonymous=True, disable_signals=True)
    twists = rospy.Publisher("/hybridvla/keyboard/twist", Twist, queue_size=1, tcp_nodelay=True)
    buttons = rospy.Publisher("/hybridvla/keyboard/joy", Joy, queue_size=1, tcp_nodelay=True)

    def publish(values: Tuple[float, ...], pressed: Tuple[int, int]) -> None:
        message = Twist()
        message.linear.x, message.linear.y, message.linear.z = values[:3]
        message.angular.x, message.angular.y, message.angular.z = values[3:]
        twists.publish(message)
        buttons.publish(Joy(buttons=list(pressed), axes=list(values)))

    with KeyReader(sys.stdin.fileno()) as reader:
        try:
            loop(reader, publish, print)
        except KeyboardInterrupt:
            print()
