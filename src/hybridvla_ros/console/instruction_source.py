"""What a demonstration should show, where no policy node says it: the policy's service and latched topic."""
from __future__ import annotations

import threading
from typing import Callable, Optional

import rosgraph
import rospy
from std_msgs.msg import String

from hybridvla.srv import SetInstruction, SetInstructionRequest, SetInstructionResponse
from hybridvla_core.robots.graph_names import INSTRUCTION, SET_INSTRUCTION
from hybridvla_ros.runtime.already_running import ASKS, asked_name, refuse_if_running


class InstructionSource:
    """Offers `/hybridvla/policy/set_instruction` and publishes `/hybridvla/policy/instruction`.

    ~instruction is the first instruction. on_switch: called for a request that wants the robot held.
    """

    def __init__(self, on_switch: Optional[Callable[[], None]] = None) -> None:
        refuse_second_source()
        self.text, self.sequence = "", 0
        self._on_switch, self._lock = on_switch, threading.Lock()
        self._publisher = rospy.Publisher(INSTRUCTION, String, queue_size=1, latch=True)
        first = str(rospy.get_param("~instruction", "")).strip()
        if first:
            self.set(first)
        rospy.Service(SET_INSTRUCTION, SetInstruction, self._serve)

    def set(self, text: str) -> bool:
        """Sets an instruction; returns whether there was anything to set."""
        text = " ".join(text.split())
        if not text:
            return False
        with self._lock:
            self.text, self.sequence = text, self.sequence + 1
            self._publisher.publish(String(text))
        return True

    def _serve(self, request: SetInstructionRequest) -> SetInstructionResponse:
        previous = self.text
        if not self.set(request.instruction):
            return SetInstructionResponse(False, "the instruction is empty; say what to do", previous, self.sequence,
                                          rospy.Time.now())
        if request.hold and self._on_switch is not None:
            self._on_switch()
        return SetInstructionResponse(True, "the instruction was set", previous, self.sequence, rospy.Time.now())


def refuse_second_source() -> None:
    """Raises HybridVLAError when another node takes instructions, or may: a second node would take the service away from it,
    and nobody would offer the service once this node ends."""
    try:
        owner = rosgraph.Master(ASKS).lookupService(asked_name(SET_INSTRUCTION))
    except (rosgraph.MasterException, OSError):
        return
    refuse_if_running("a node that takes instructions, a policy perhaps (record beside it with teleop:=none),", owner)


def main() -> None:
    """Runs as a node of its own, for the AgileX leader arms, whose driver knows no instructions."""
    InstructionSource()
    rospy.spin()
