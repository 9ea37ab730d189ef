"""The AgileX half of `make rigs`: `agilex.launch rig:=stand_in` with a scripted policy carries the tray, episode by episode."""
from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.graph import Graph
from hybridvla_sim.piper_rig import TASK

EPISODE_TIMEOUT_S = 90.0
DEADMAN_S = 0.03
TIMING_S = 20.0


class AgilexOperator:
    """The person at the rig: presses the deadman, activates, gives the task, watches. Services and topics only."""

    def __init__(self) -> None:
        import rospy
        from std_msgs.msg import Bool, String
        from std_srvs.srv import SetBool, Trigger

        from hybridvla.msg import ActionProposal, PolicyHeartbeat, SafetyStatus
        from hybridvla.srv import ResetScene, RigReport, SetInstruction

        self._rospy = rospy
        self.pressed = self._alive = True
        self.status: Any = None
        self.heartbeat: Any = None
        self.proposals: List[Any] = []
        self._deadman = rospy.Publisher("/hybridvla/safety/deadman", Bool, queue_size=1)
        self._fault = rospy.Publisher("/piper_rig/fault", String, queue_size=5)
        rospy.Subscriber("/hybridvla/safety/status", SafetyStatus, self._on_status, queue_size=20)
        rospy.Subscriber("/hybridvla/policy/heartbeat", PolicyHeartbeat, lambda m: setattr(self, "heartbeat", m))
        rospy.Subscriber("/hybridvla/policy/proposal", ActionProposal, self.proposals.append, queue_size=20)
        for name in ("/hybridvla/safety/activate", "/piper_rig/report"):
            rospy.wait_for_service(name, timeout=60.0)
        self.activate = rospy.ServiceProxy("/hybridvla/safety/activate", SetBool)
        self.report = rospy.ServiceProxy("/piper_rig/report", RigReport)
        self.scene = rospy.ServiceProxy("/piper_rig/reset_scene", ResetScene)
        self.instruct = rospy.ServiceProxy("/hybridvla/policy/set_instruction", SetInstruction)
        for name in ("stop", "resume", "reenter"):
            setattr(self, name, rospy.ServiceProxy(f"/hybridvla/safety/{name}", Trigger))
        self.go_to_start = rospy.ServiceProxy("/hybridvla/robot/go_to_start", Trigger)
        self.enable = rospy.ServiceProxy("/hybridvla/robot/enable", Trigger)
        self._bool = Bool
        threading.Thread(target=self._press, daemon=True).start()

    def _press(self) -> None:
        while self._alive and not self._rospy.is_shutdown():
            if self.pressed:
                self._deadman.publish(self._bool(True))
            time.sleep(DEADMAN_S)

    def close(self) -> None:
        """Let go of everything."""
        self._alive = False

    def _on_status(self, message: Any) -> None:
        self.status = message

    def fault(self, text: str) -> None:
        self._fault.publish(text)

    def state(self, name: str) -> bool:
        return self.status is not None and self.status.state == getattr(type(self.status), name)

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 20.0) -> None:
        """Raises HybridVLAError when the condition does not come true."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise HybridVLAError(f"{what} did not come within {timeout:.0f} s; the filter says: "
                                     f"{self.status.message if self.status else 'nothing'}")
            time.sleep(0.02)

    def rig(self) -> Dict[str, Any]:
        """The rig's own report: violations_by_name, joints (degrees), enabled, tray."""
        return json.loads(self.report("").report)

    def start(self, seed: Optional[int] = None) -> None:
        """Active; with a seed, after the slow way to the start pose and with a new scene."""
        self.until(lambda: self.status is not None, "a status of the filter")
        self.until(lambda: not self.state("STOPPED") or self.resume().success, "resume")
        self.activate(False)
        self.until(lambda: self.state("INACTIVE"), "INACTIVE")
        if seed is not None:
            answer = self.go_to_start()
            if not answer.success:
                raise HybridVLAError(f"go_to_start: {answer.message}")
            self.scene(seed)
            time.sleep(0.3)
        answers: List[str] = []

        def active() -> bool:
            answer = self.activate(True)
            answers.append(answer.message)
            return bool(answer.success)
        try:
            self.until(active, "activation")
        except HybridVLAError as error:
            raise HybridVLAError(f"activate: {answers[-1]}") from error


def episode(operator: AgilexOperator, seed: int) -> Dict[str, Any]:
    """One tray carried, or not; the rig judges."""
    operator.start(seed)
    operator.instruct(TASK, False)
    began, done = time.monotonic(), 0
    while time.monotonic() - began < EPISODE_TIMEOUT_S and done < 3:
        time.sleep(0.25)
        done = done + 1 if operator.report(TASK).task_done else 0
    seconds = round(time.monotonic() - began, 1)
    operator.instruct("stay", False)
    operator.activate(False)
    return {"seed": seed, "success": done >= 3, "seconds": seconds}


def run(folder: Path, episodes: int = 3, port: Optional[int] = None) -> Dict[str, Any]:
    """The part `agilex` of `make rigs`' summary (design, "Results for machines"); logs in `folder`.

    Two launches: the episodes, with rendered views; then, for the time from stamp to target, three views of 640x480 at
    30 Hz that are drawn once, so that the renderer, which a real rig does not have, takes none of the two cores.
    """
    import rospy

    with Graph(folder / "logs", port) as graph:
        graph.start(["roscore", "-p", str(graph.port)], "roscore.log")
        graph.wait_for_master()
        rospy.init_node("hybridvla_rigs", anonymous=True, disable_signals=True)
        with _launched(graph) as operator:
            rows = [episode(operator, seed) for seed in range(1, episodes + 1)]
            answer, report = operator.report(""), operator.rig()
        with _launched(graph, "image_hz:=30", "image_width:=640", "image_height:=480", "still:=true") as operator:
            timing = time_from_stamp(operator)
    return {"episodes": len(rows), "successes": sum(row["success"] for row in rows),
            "limit_violations": int(answer.limit_violations), "violations_by_name": report["violations_by_name"],
            "last_violation": report["last_violation"], "commands": int(answer.targets),
            "disabled_by_flag": report["disabled_by_flag"], "policy": "scripted", "views": 3, **timing, "rows": rows}


def time_from_stamp(operator: AgilexOperator, seconds: float = TIMING_S) -> Dict[str, Any]:
    """From the camera's stamp to the filter's first target of the proposal, beyond the policy's own time."""
    from hybridvla_ros.rigs_timing import StampToTarget

    timing = StampToTarget()
    operator.start(1)
    operator.instruct("stay", False)
    time.sleep(seconds)
    operator.activate(False)
    return timing.result()


@contextlib.contextmanager
def _launched(graph: Graph, *arguments: str) -> Iterator[AgilexOperator]:
    """agilex.launch with the stand-in and the scripted policy, up and warm; ended on leaving."""
    import rospy

    process = graph.launch("agilex.launch", "rig:=stand_in", "policy:=scripted", "speed_scale:=1.0", *arguments)
    try:
        try:
            operator = AgilexOperator()
            operator.until(lambda: operator.heartbeat is not None, "a heartbeat of the policy", 60.0)
        except (rospy.ROSException, HybridVLAError) as error:
            raise HybridVLAError(f"the AgileX rig did not come up ({error}); the end of its log:\n{graph.log_tail()}") from error
        yield operator
        operator.close()
    finally:
        graph.end(process, 20.0)
