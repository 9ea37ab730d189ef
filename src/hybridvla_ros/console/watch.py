"""One line per change: state, instruction, policy, episode, and what the filter did instead of what it was asked."""
from __future__ import annotations

import threading
import time
from typing import Callable, Dict, Optional, Tuple

import rosgraph
import rospy

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.console.operator.desk import listen
from hybridvla_ros.console.operator.state import ConsoleState

LOOK_S, FIRST_S = 0.2, 3.0
#: A line said this recently is not said again, unless it is still the newest after `SETTLED_S`.
AGAIN_S, SETTLED_S = 5.0, 1.0


class Lines:
    """Says lines. Of a state that goes back and forth it says each line once in `AGAIN_S`, and counts what it left out.

    Any thread may call. The first word of a line is its subject. The newest line on each subject is always said in the end, even
    when lines on other subjects came after it: the last line in the terminal holds.

    Args:
        say: Prints a line.
        clock: Returns monotonic time, s.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._lock = threading.Lock()
        self._said: Dict[str, float] = {}
        self._waiting: Dict[str, Tuple[str, float]] = {}     # by subject: the newest line if it was left out, and when
        self._left_out = 0                                   # outdated lines that were not said

    @property
    def any(self) -> bool:
        """Tells whether anything was said."""
        return bool(self._said)

    def tell(self, line: str) -> None:
        """Says a line, or leaves it out."""
        with self._lock:
            now, about = self._clock(), line.split(" ", 1)[0]
            if self._waiting.pop(about, None) is not None:
                self._left_out += 1
            if line in self._said and now - self._said[line] < AGAIN_S:
                self._waiting[about] = (line, now)
            else:
                self._out(line, now)

    def look(self) -> None:
        """Says the newest line on each subject if it was left out and no other line on that subject followed."""
        with self._lock:
            now = self._clock()
            for about, (line, at) in list(self._waiting.items()):
                if now - at >= SETTLED_S:
                    del self._waiting[about]
                    self._out(line, now)

    def _out(self, line: str, now: float) -> None:
        if self._left_out:
            self._say(f"({self._left_out} more changes between the lines above)")
        self._say(line)
        self._said = {text: at for text, at in self._said.items() if now - at < AGAIN_S}
        self._said[line], self._left_out = now, 0


def watch(say: Callable[[str], None], seconds: Optional[float] = None) -> int:
    """Says changes until Ctrl-C, or for `seconds`.

    Returns:
        0; 1 when nothing of ours has said anything.

    Raises:
        HybridVLAError: There is no master.
        BrokenPipeError: Nobody reads the output any more.
    """
    if not rosgraph.is_master_online():
        raise HybridVLAError(f"no ROS master answers at {rosgraph.get_master_uri()}; start a launch file first, or set "
                             "ROS_MASTER_URI (`hybridvla doctor` looks further)")
    rospy.init_node("hybridvla_watch", anonymous=True, disable_signals=True)
    gone = threading.Event()

    def tell(line: str) -> None:
        try:
            say(line)
        except BrokenPipeError:     # on a thread of rospy, which would log it and go on
            gone.set()
    lines = Lines(lambda line: tell(f"{time.strftime('%H:%M:%S')}  {line}"))
    state = ConsoleState(lines.tell)
    subscribers = listen(state)
    began = time.monotonic()
    asked = False
    while not rospy.is_shutdown() and (seconds is None or time.monotonic() - began < seconds):
        time.sleep(LOOK_S)
        if gone.is_set():
            raise BrokenPipeError
        state.look()
        lines.look()
        if not lines.any and not asked and time.monotonic() - began > FIRST_S:
            asked = True
            tell("nothing is published on /hybridvla/...; does a safety filter run on this master?")
    for subscriber in subscribers:
        subscriber.unregister()
    return 0 if lines.any else 1
