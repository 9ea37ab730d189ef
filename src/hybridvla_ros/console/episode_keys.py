"""Labels by single keys in a terminal: `rosrun hybridvla episode_keys`. It only calls the services."""
from __future__ import annotations

import os
import select
import sys
import termios
import tty
from typing import Callable, Dict, Optional

import rospy
from std_srvs.srv import Trigger

from hybridvla_ros.messages.services import ANSWER_S, EPISODE_S, ask

KEYS: Dict[str, str] = {"s": "start", "y": "success", "n": "failure", "d": "discard"}
QUIT = ("q", "\x03", "\x04")
ESCAPE = b"\x1b"
#: How long the rest of a key that begins with ESCAPE may take, s; over ssh it arrives in one packet.
SEQUENCE_S = 0.02
HELP = "s start   y success   n failure   d discard   q quit"


class KeyReader:
    """Reads one key at a time from a terminal, without Enter; restores the terminal afterwards."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> KeyReader:
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        return self

    def __exit__(self, *_exception: object) -> None:
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def read(self, timeout: float) -> Optional[str]:
        """Waits at most `timeout` s for a key.

        Returns:
            The key; None when none came, an empty string at the end of the input. An arrow key, or any other key that a terminal
            sends as several bytes, counts as one key: read byte by byte, its end would be a letter.
        """
        if not self._waiting(timeout):
            return None
        key = os.read(self._descriptor, 1)
        if key == ESCAPE and self._waiting(SEQUENCE_S):
            key += os.read(self._descriptor, 16)
        return key.decode(errors="replace")

    def _waiting(self, timeout: float) -> bool:
        return bool(select.select([self._descriptor], [], [], timeout)[0])


def call(name: str) -> str:
    """Returns what the service says, or that it is not there."""
    service = f"/hybridvla/episode/{name}"
    try:
        answer = ask(service, Trigger, answer_s=EPISODE_S[name] + ANSWER_S)
    except (rospy.ROSException, rospy.ServiceException) as error:
        return f"{service} does not answer ({error}); is episode_node running?"
    return answer.message if answer.success else f"PROBLEM: {answer.message}"


def loop(reader: KeyReader, ask: Callable[[str], str], say: Callable[[str], None]) -> None:
    """Runs until q, the end of the input, or the end of ROS."""
    say(HELP)
    while not rospy.is_shutdown():
        key = reader.read(0.2)
        if key is None:
            continue
        if key == "" or key in QUIT:
            return
        if key.lower() in KEYS:
            say(ask(KEYS[key.lower()]))
        elif key.strip():
            say(HELP)


def main() -> None:
    if not sys.stdin.isatty():
        sys.exit("episode_keys needs a terminal: run it by hand, not from a launch file")
    rospy.init_node("episode_keys", anonymous=True, disable_signals=True)
    with KeyReader(sys.stdin.fileno()) as reader:
        try:
            loop(reader, call, print)
        except KeyboardInterrupt:
            print()
