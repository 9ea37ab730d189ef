"""The AgileX half of `make rigs`: `agilex.launch rig:=stand_in` with a scripted policy carries the tray, episode by episode."""
from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.demos.rigs_operator import RigOperator
from hybridvla_ros.runtime.private_graph import Graph
from hybridvla_sim.tasks.tray.task import INSTRUCTION

EPISODE_TIMEOUT_S = 90.0
TIMING_S = 20.0


class AgilexOperator(RigOperator):
    """The person at the two arms: also enables them, and causes their faults."""

    def __init__(self) -> None:
        super().__init__("/piper_rig")
        from std_msgs.msg import String
        from std_srvs.srv import Trigger

        self.enable = self._rospy.ServiceProxy("/hybridvla/robot/enable", Trigger)
        self._fault = self._rospy.Publisher("/piper_rig/fault", String, queue_size=5)

    def fault(self, text: str) -> None:
        self._fault.publish(text)

    def start(self, seed: Optional[int] = None) -> None:
        """Activates the filter; with a seed, after the slow motion to the start pose and with a new scene."""
        if seed is None:
            self.rest()
        else:
            self.begin(seed)
        self.answered(self.activate, True, what="activate")


def episode(operator: AgilexOperator, seed: int) -> Dict[str, Any]:
    """Runs one episode of carrying the tray; the rig judges."""
    operator.start(seed)
    operator.instruct(INSTRUCTION, False)
    began, done = time.monotonic(), 0
    while time.monotonic() - began < EPISODE_TIMEOUT_S and done < 3:
        time.sleep(0.25)
        done = done + 1 if operator.report(INSTRUCTION).task_done else 0
    seconds = round(time.monotonic() - began, 1)
    operator.instruct("stay", False)
    operator.activate(False)
    return {"seed": seed, "success": done >= 3, "seconds": seconds}


def run(folder: Path, episodes: int = 3, port: Optional[int] = None) -> Dict[str, Any]:
    """Runs the part `agilex` of `make rigs`.

    Two launches: first the episodes, with rendered views; then, for the time from stamp to target, three cameras, each in its
    own process, send one 640x480 picture at 30 Hz, because a real rig has no renderer to take one of the two cores.

    Args:
        folder: Folder for the logs.
        episodes: Number of episodes.
        port: Port of the master; a free one when None.

    Returns:
        This part of the summary in out/rigs.
    """
    import rospy

    from hybridvla_ros.stand_ins.piper.node import CAMERA_NAMES
    from hybridvla_ros.stand_ins.still_camera import start_still_cameras

    with Graph(folder / "logs", port) as graph:
        graph.start(["roscore", "-p", str(graph.port)], "roscore.log")
        graph.wait_for_master()
        rospy.init_node("hybridvla_rigs", anonymous=True, disable_signals=True)
        with _launched(graph) as operator:
            rows = [episode(operator, seed) for seed in range(1, episodes + 1)]
            answer, report = operator.report(""), operator.rig()
        start_still_cameras(graph, [f"/{camera}/color/image_raw" for camera in CAMERA_NAMES.values()])
        with _launched(graph, "image_hz:=0") as operator:
            timing = time_from_stamp(operator)
    return {"episodes": len(rows), "successes": sum(row["success"] for row in rows),
            "limit_violations": int(answer.limit_violations), "violations_by_name": report["violations_by_name"],
            "last_violation": report["last_violation"], "commands": int(answer.targets),
            "disabled_by_flag": report["disabled_by_flag"], "policy": "scripted", "views": 3, **timing, "rows": rows}


def time_from_stamp(operator: AgilexOperator, seconds: float = TIMING_S) -> Dict[str, Any]:
    """Measures from the camera's stamp to the filter's first target of the proposal, beyond the policy's own time."""
    from hybridvla_ros.benchmarks.stamp_to_target import StampToTarget

    operator.start(1)
    operator.instruct("stay", False)
    with StampToTarget() as timing:
        time.sleep(seconds)
    operator.activate(False)
    return timing.result()


@contextlib.contextmanager
def _launched(graph: Graph, *arguments: str) -> Iterator[AgilexOperator]:
    """Launches agilex.launch with the stand-in and the scripted policy, up and warm; ends it on leaving."""
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
