"""The person at a rig, for `make rigs` and the rigs' tests: services and topics only."""
from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Protocol, Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots import graph_names
from hybridvla_core.safety.status import SafetyStatus
from hybridvla_ros.runtime.patience import patience
from hybridvla_ros.runtime.workers import start_worker

if TYPE_CHECKING:
    from hybridvla.msg import PolicyHeartbeat
    from hybridvla.msg import SafetyStatus as SafetyStatusMessage

DEADMAN_S = 0.03


class Answer(Protocol):
    """The fields of every service's answer here."""

    success: bool
    message: str


class RigOperator:
    """Holds the deadman while `pressed`, activates, instructs, watches. stand_in: namespace of the rig's own services."""

    def __init__(self, stand_in: str) -> None:
        import rospy
        from std_msgs.msg import Bool
        from std_srvs.srv import SetBool, Trigger

        from hybridvla.msg import PolicyHeartbeat
        from hybridvla.msg import SafetyStatus as SafetyStatusMessage
        from hybridvla.srv import ResetScene, RigReport, SetInstruction
        from hybridvla_ros.messages.conversions import status_contract

        self._rospy, self._bool, self._read = rospy, Bool, status_contract
        self.pressed = self._alive = True
        self.status: Optional[SafetyStatus] = None
        self.heartbeat: Optional[PolicyHeartbeat] = None
        self.events: List[Tuple[float, str]] = []
        self._began, self._said = time.monotonic(), ""
        self._deadman = rospy.Publisher(graph_names.DEADMAN, Bool, queue_size=1)
        rospy.Subscriber(graph_names.STATUS, SafetyStatusMessage, self._on_status, queue_size=50)
        rospy.Subscriber(graph_names.HEARTBEAT, PolicyHeartbeat, self._on_beat, queue_size=5)
        for name in (graph_names.ACTIVATE, f"{stand_in}/report"):
            rospy.wait_for_service(name, timeout=60.0)
        self.activate = rospy.ServiceProxy(graph_names.ACTIVATE, SetBool)
        self.report = rospy.ServiceProxy(f"{stand_in}/report", RigReport)
        self.scene = rospy.ServiceProxy(f"{stand_in}/reset_scene", ResetScene)
        self.instruct = rospy.ServiceProxy(graph_names.SET_INSTRUCTION, SetInstruction)
        self.stop = rospy.ServiceProxy(graph_names.STOP, Trigger)
        self.resume = rospy.ServiceProxy(graph_names.RESUME, Trigger)
        self.reenter = rospy.ServiceProxy(graph_names.REENTER, Trigger)
        self.go_to_start = rospy.ServiceProxy(graph_names.GO_TO_START, Trigger)
        start_worker("pressing the dead-man switch", self._press)

    def close(self) -> None:
        """Releases the deadman."""
        self._alive = False

    def _press(self) -> None:
        while self._alive and not self._rospy.is_shutdown():
            try:
                if self.pressed:
                    self._deadman.publish(self._bool(True))
            except self._rospy.ROSException:
                return      # shutting down between the check and the call
            time.sleep(DEADMAN_S)

    def _on_beat(self, message: PolicyHeartbeat) -> None:
        self.heartbeat = message

    def _on_status(self, message: SafetyStatusMessage) -> None:
        status = self._read(message)
        said = f"{status.state.name}: {status.message}"
        if said != self._said:
            self._said = said
            self.note(said)
        self.status = status

    def note(self, text: str) -> None:
        """Notes a line on what happened, with s since the start."""
        self.events.append((round(time.monotonic() - self._began, 2), text))

    def state(self, *names: str) -> bool:
        return self.status is not None and self.status.state.name in names

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 30.0) -> None:
        """Raises HybridVLAError when the condition does not come true."""
        timeout = patience(timeout)
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise HybridVLAError(f"{what} did not come within {timeout:.0f} s; the filter says: "
                                     f"{self.status.message if self.status else 'nothing'}")
            time.sleep(0.02)

    def rig(self) -> Dict[str, Any]:
        """Returns the rig's own report."""
        return json.loads(self.report("").report)

    def answered(self, service: Callable[..., Answer], *arguments: object, what: str, timeout: float = 40.0) -> None:
        """Calls until it succeeds; notes what it says meanwhile."""
        answers: List[str] = [""]

        def done() -> bool:
            answer = service(*arguments)
            if answer.message != answers[-1]:
                answers.append(answer.message)
                self.note(f"{what}: {answer.message}")
            if not answer.success:
                time.sleep(0.2)
            return bool(answer.success)
        try:
            self.until(done, what, timeout)
        except HybridVLAError as error:
            raise HybridVLAError(f"{what}: {answers[-1]}") from error

    def begin(self, seed: Optional[int] = None) -> None:
        """Goes from any state to inactive at the start pose, with a new scene if asked for."""
        self.rest()
        self.answered(self._to_start, what="go_to_start")
        if seed is not None:
            self.answered(self.scene, seed, what="reset_scene")
            time.sleep(0.3)

    def _to_start(self) -> Answer:
        """Requests the motion to the start; where an arm ended a hair outside a limit, first the way back inside."""
        answer: Answer = self.go_to_start()
        if not answer.success and "call reenter" in answer.message and self.reenter().success:
            time.sleep(0.3)         # until the status says that the arm is on its way
            self.until(lambda: self.state("INACTIVE"), "the end of the way back inside")
        return answer

    def rest(self) -> None:
        """Goes from any state to inactive."""
        self.until(lambda: self.status is not None, "a status", 60.0)
        self.until(lambda: not self.state("STOPPED") or self.resume().success, "resume")
        self.activate(False)
        self.until(lambda: self.state("INACTIVE"), "INACTIVE")
