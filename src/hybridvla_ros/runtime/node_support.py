"""What all nodes share: parameters, files, diagnostics, publishing to the end, and errors that end a node in one sentence."""
from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import rospy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.already_running import own_name, refuse_taken_name
from hybridvla_ros.runtime.graph_watch import GraphWatch
from hybridvla_ros.runtime.memory import keep_freed_memory
from hybridvla_ros.runtime.ros_clock import clock_problem, watch_clock
from hybridvla_ros.runtime.workers import FAULTS, Rate, described


def package_path(path: str) -> Path:
    """Returns a path from a parameter or configuration: absolute, or relative to the package's root."""
    given = Path(path).expanduser()
    return given if given.is_absolute() else ROOT / given


def own_path(name: str, given: str) -> Path:
    """Returns the path of a user's own file from a launch argument.

    Args:
        name: Name of the argument.
        given: What was given: absolute, or with ~.

    Returns:
        The absolute path.

    Raises:
        HybridVLAError: The path is relative. A node does not know the folder of the terminal that it was launched from.
    """
    path = Path(given).expanduser()
    if not path.is_absolute():
        raise HybridVLAError(f"{name} is {given!r}, which roslaunch would look for in ~/.ros; write $PWD/{path} or ~/{path}")
    return path


def require_parameter(name: str) -> str:
    """Returns a private string parameter that must be set."""
    value = str(rospy.get_param("~" + name, "")).strip()
    if not value:
        raise HybridVLAError(f"parameter ~{name} is not set; start the node through its launch file or set it")
    return value


def number_parameter(name: str, default: float) -> float:
    """Returns a private numeric parameter, or the default if it is unset or empty (a launch argument without a value)."""
    value = rospy.get_param("~" + name, default)
    if isinstance(value, str) and not value.strip():
        value = default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise HybridVLAError(f"parameter ~{name} is {value!r}; set it to a number")
    return float(value)


class UnfailingLog:
    """Makes a full disk or a closed terminal lose log lines and nothing else. `lost` counts them."""

    def __init__(self) -> None:
        self.lost = 0
        logging.raiseExceptions = False        # otherwise every lost line becomes a traceback on the same full disk
        for logger in (logging.getLogger(), logging.getLogger("rosout")):
            for handler in logger.handlers:
                handler.emit = self._guarded(handler.emit)        # type: ignore[method-assign]
                handler.handleError = self._count                 # type: ignore[method-assign]

    def _count(self, _record: object) -> None:
        self.lost += 1

    def _guarded(self, emit: Callable[[logging.LogRecord], None]) -> Callable[[logging.LogRecord], None]:
        def guarded(record: logging.LogRecord) -> None:
            try:
                emit(record)
            except OSError:
                self.lost += 1
        return guarded


def run_node(name: str, main: Callable[[], None], before: Callable[[], None] = lambda: None,
             stays_known: bool = False) -> None:
    """Initialises and runs a node, and turns an explained error into one line and exit status 1.

    Args:
        name: Name of the node.
        main: Work of the node, until shutdown.
        before: Checks what must hold before this node takes its name. A name taken twice ends the node that had it, so a name
            that is in use, or may be, is refused.
        stays_known: Whether the node registers again with a restarted master.
    """
    try:
        before()
        refuse_taken_name(own_name(name))
    except HybridVLAError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)
    keep_freed_memory()
    rospy.init_node(name)
    watch_clock()
    tell_faults()
    if stays_known:
        GraphWatch()
    try:
        main()
    except HybridVLAError as error:
        rospy.logfatal("%s: %s", rospy.get_name(), error)
        sys.exit(1)
    except rospy.ROSInterruptException:
        rospy.loginfo("%s: shutting down", rospy.get_name())


def node_ending() -> bool:
    """Tells whether the node's end has begun. rospy.is_shutdown() says so only after the topics have been closed."""
    return rospy.core.is_shutdown_requested() or rospy.is_shutdown()


def publish_unless_ending(publisher: rospy.Publisher, message: rospy.Message) -> bool:
    """Publishes, for threads that run until the node ends: returns False, without an error, when the end closed the topic."""
    try:
        publisher.publish(message)
    except rospy.ROSException:
        if not node_ending():
            raise
        return False
    return True


def tell_faults() -> None:
    """Shows the faults of this node's threads in `/diagnostics`, even for a node that otherwise reports nothing there."""
    publishers: List[rospy.Publisher] = []

    def tell() -> None:
        problem = FAULTS.problem
        if not problem and not publishers:
            return
        if not publishers:
            publishers.append(rospy.Publisher("/diagnostics", DiagnosticArray, queue_size=2))
        level = DiagnosticStatus.ERROR if problem else DiagnosticStatus.OK
        array = DiagnosticArray(status=[DiagnosticStatus(level=level, name=f"{rospy.get_name().lstrip('/')}: threads",
                                                         message=problem or "all threads work")])
        array.header.stamp = rospy.Time.now()
        publish_unless_ending(publishers[0], array)
    Rate(1.0, tell, "telling faults")


class Diagnostics:
    """Publishes one `/diagnostics` entry a second (REP-107), even while simulated time stands still, which it then names.

    Args:
        subsystem: The subsystem reported on; the entry is called `node: subsystem`.
        report: Returns level, message and values.
    """

    def __init__(self, subsystem: str, report: Callable[[], Tuple[int, str, Dict[str, object]]]) -> None:
        self._name = f"{rospy.get_name().lstrip('/')}: {subsystem}"
        self._report = report
        self._publisher = rospy.Publisher("/diagnostics", DiagnosticArray, queue_size=2)
        self._reports = Rate(1.0, self._publish, f"reporting on {subsystem}")

    def _publish(self) -> None:
        try:
            level, message, values = self._report()
        except Exception as error:  # noqa: BLE001  # an entry that stays away says less than one with the error
            level, message, values = DiagnosticStatus.ERROR, f"the report fails: {described(error)}", {}
        for problem, least in ((clock_problem(), DiagnosticStatus.WARN), (FAULTS.problem, DiagnosticStatus.ERROR)):
            if problem and problem not in message:
                level, message = max(level, least), f"{problem}; {message}" if message else problem
        entries: List[KeyValue] = [KeyValue(str(key), str(value)) for key, value in values.items()]
        array = DiagnosticArray(status=[DiagnosticStatus(level=level, name=self._name, message=message, values=entries)])
        array.header.stamp = rospy.Time.now()
        publish_unless_ending(self._publisher, array)
