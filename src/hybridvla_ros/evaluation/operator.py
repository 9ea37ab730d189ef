"""The person at a simulated rig who runs episodes of a task, by services and topics only."""
from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots.graph_names import ACTIVATE, GO_TO_START, PROPOSAL, SET_INSTRUCTION
from hybridvla_ros.demos import activation
from hybridvla_ros.demos.rigs_operator import RigOperator
from hybridvla_ros.runtime.patience import patience

if TYPE_CHECKING:
    from hybridvla.msg import ActionProposal, PolicyHeartbeat
    from hybridvla.msg import SafetyStatus as SafetyStatusMessage
    from hybridvla.srv import RigReportResponse
    from hybridvla_sim.task import EpisodeSpec, Task

POLL_S = 0.1
#: A policy silent for this long, s, or a rig that needs this many s for one of its own, is an error, not a failed episode.
SILENT_S, SLOWEST = 10.0, 12.0
UP_S = 120.0


class TaskOperator(RigOperator):
    """Resets by seed, instructs, activates, and waits until the rig reports the task done or its time ends.

    Args:
        stand_in: Namespace of the rig's own services.
        launch: The roslaunch process that is coming up.

    Raises:
        HybridVLAError: The services are not available in time, or the launch has ended.
    """

    def __init__(self, stand_in: str, launch: subprocess.Popen) -> None:
        import rospy

        self._rospy, self._launch = rospy, launch
        self.status, self._names = None, (
            f"{stand_in}/report", f"{stand_in}/reset_scene", ACTIVATE, SET_INSTRUCTION, GO_TO_START)
        self._up()
        self._decisions: List[Dict[str, Any]] = []
        self._tick_ms: List[float] = []
        self._beat_at = 0.0
        super().__init__(stand_in)
        from hybridvla.msg import ActionProposal

        self._rospy.Subscriber(PROPOSAL, ActionProposal, self._on_proposal, queue_size=20)

    def meet(self, launch: subprocess.Popen) -> None:
        """Waits until the launched nodes are up and the policy is warm.

        Raises:
            HybridVLAError: They are not ready in time, or the launch has ended.
        """
        self._launch, self.status, self.heartbeat = launch, None, None
        self._up()
        self.until(lambda: self._going() and self.heartbeat is not None and not self.heartbeat.warming_up, "a warm policy", UP_S)

    def episode(self, task: Task, spec: EpisodeSpec) -> Dict[str, Any]:
        """Runs one episode.

        Args:
            task: The task, with its limits of time and keyframes.
            spec: Scene and instructions.

        Returns:
            The episode as plain data, with the fields of an in-process episode; predictions are not compared with the expert's.

        Raises:
            HybridVLAError: A service refuses for good, a node ended, or the rig is far slower than real time.
        """
        self.begin(spec.seed)
        goal, second = spec.instruction, spec.second
        self.answered(self.instruct, goal, False, what="set_instruction")
        before, counters = self._looked(""), self._counters()
        self._follow()
        self._decisions, self._tick_ms = [], []
        began, started, most = self._time(self._looked(goal)), time.monotonic(), task.max_keyframes
        stops, held, elapsed = 0, 0, 0.0
        while elapsed < task.max_time and held < activation.LOOKS and (second is not None or held
                                                                       or len(self._decisions) <= most):
            time.sleep(POLL_S)
            if self.state("STOPPED"):
                if stops == activation.MOST_STOPS:
                    raise HybridVLAError(f"the filter stopped {stops + 1} times in the episode of seed {spec.seed}, which is no "
                                         f"failure of the policy: {self.status.message}")
                stops += 1
                self._follow()
            report = self._looked(goal)
            elapsed = self._time(report) - began
            if time.monotonic() - started > patience(SLOWEST * task.max_time):
                raise HybridVLAError(f"{elapsed:.0f} s of the rig took {time.monotonic() - started:.0f} s; end other work")
            if second is not None:
                if elapsed >= (spec.switch_at or 0.0):
                    goal, second = second, None
                    self.answered(self.instruct, goal, False, what="set_instruction")
                    most += len(self._decisions)
                continue
            held = held + 1 if report.task_done else 0
        decisions, tick_ms, after = list(self._decisions), list(self._tick_ms), self._looked("")
        self.activate(False)
        return {"seed": spec.seed, "task": spec.goal, "success": held >= activation.LOOKS, "time": round(elapsed, 2),
                "keyframes": len(decisions), "violations": int(after.limit_violations - before.limit_violations),
                "counters": {name: count - counters.get(name, 0) for name, count in self._counters().items()
                             if count > counters.get(name, 0)},
                "reasons": {}, "tick_ms": tick_ms, "decisions": decisions, "stops": stops}

    def _up(self) -> None:
        for name in self._names:
            self.until(lambda name=name: self._there(name), f"service {name}", UP_S)  # type: ignore[misc]

    # Looking ------------------------------------------------------------------------------------------------------

    def _there(self, name: str) -> bool:
        """Tells whether a service answers now."""
        self._going()
        try:
            self._rospy.wait_for_service(name, timeout=0.5)
        except self._rospy.ROSException:
            return False
        return True

    def _going(self) -> bool:
        if self._launch.poll() is not None:
            raise HybridVLAError(f"roslaunch ended with status {self._launch.returncode}")
        return True

    def _looked(self, instruction: str) -> RigReportResponse:
        """Returns the rig's report; with an instruction, the report says whether it is carried out."""
        self._going()
        silent = time.monotonic() - self._beat_at
        if silent > patience(SILENT_S):
            raise HybridVLAError(f"the policy has been silent for {silent:.0f} s")
        try:
            answer = self.report(instruction)
        except self._rospy.ServiceException as error:
            raise HybridVLAError(f"the rig does not answer ({error})") from error
        if not answer.success:
            raise HybridVLAError(answer.message)
        return answer

    @staticmethod
    def _time(report: RigReportResponse) -> float:
        """Returns the time of the simulation, s: a busy computer slows it down."""
        return float(json.loads(report.report)["time"])

    def _counters(self) -> Mapping[str, int]:
        return dict(self.status.counters) if self.status is not None else {}

    def _follow(self) -> None:
        activation.when_willing("activate", lambda: self.activate(True), self.resume)

    # Hearing ------------------------------------------------------------------------------------------------------

    def _on_beat(self, message: PolicyHeartbeat) -> None:
        super()._on_beat(message)
        self._beat_at = time.monotonic()

    def _on_status(self, message: SafetyStatusMessage) -> None:
        super()._on_status(message)
        self._tick_ms.append(float(message.tick_cpu_ms))

    def _on_proposal(self, message: ActionProposal) -> None:
        if message.kind != message.ACTION:
            return
        absent: Tuple[str, ...] = ("error", "errors", "diffusion", "autoregressive", "token_right", "token_confidence",
                                   "yaw_error")
        self._decisions.append({**dict.fromkeys(absent), "phase": "", "fused": bool(message.fused),
                                "confidence": float(message.mean_confidence), "ms": float(sum(message.stage_ms)),
                                "distance": float(message.path_distance)})
