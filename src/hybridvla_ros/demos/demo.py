"""`make demo`: the simulated FR3, the policy with the shipped checkpoint and the filter on a private ROS graph, headless.

Gives instructions by the service, switches two of six in the middle of their episodes, and leaves a summary, a bag, a video and a
page in out/demo.
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import renew_folder
from hybridvla_core.paths import ROOT
from hybridvla_ros.demos import activation
from hybridvla_ros.demos.command import carry_out
from hybridvla_ros.runtime.patience import patience
from hybridvla_ros.runtime.private_graph import Graph

if TYPE_CHECKING:
    from hybridvla.srv import RigReportResponse
    from hybridvla_ros.demos.demo_record import Recorded

BAG_TOPICS = ["/joint_states", "/camera_front/color/image_raw/compressed", "/camera_wrist/color/image_raw/compressed",
              "/camera_front/color/camera_info", "/cartesian_impedance_example_controller/equilibrium_pose",
              "/sim_rig/tool_pose", "/sim_rig/gripper/command", "/hybridvla/policy/proposal", "/hybridvla/policy/heartbeat",
              "/hybridvla/policy/instruction", "/hybridvla/safety/status", "/diagnostics"]
#: Scene seed, instruction, and for the switched ones the second instruction.
EPISODES = ((3_000_001, "put the red block on the green pad", None),
            (3_000_001, "put the blue block on the yellow pad", None),
            (3_000_002, "put the yellow block on the red pad", "put the green block on the blue pad"),
            (3_000_003, "put the green block on the green pad", None),
            (3_000_004, "put the red block on the blue pad", "put the blue block on the red pad"),
            (3_000_005, "put the yellow block on the yellow pad", None))
SWITCH_AFTER_S = 3.0
EPISODE_TIMEOUT_S = 45.0
MOST_STOPS = 3           # of an episode: a computer that is too busy now and then may go on, one that always is may not


class Demo:
    """Talks to the graph as an operator would: services and topics only."""

    def __init__(self, folder: Path) -> None:
        import rospy
        from std_srvs.srv import SetBool, Trigger

        from hybridvla.srv import ResetScene, RigReport, SetInstruction
        from hybridvla_ros.demos.demo_record import DemoObserver

        rospy.init_node("hybridvla_demo", anonymous=True, disable_signals=True)
        for name in ("/hybridvla/policy/set_instruction", "/hybridvla/safety/activate", "/sim_rig/report"):
            rospy.wait_for_service(name, timeout=patience(60.0))
        self._set_instruction = rospy.ServiceProxy("/hybridvla/policy/set_instruction", SetInstruction)
        self._resume = rospy.ServiceProxy("/hybridvla/safety/resume", Trigger)
        self._activate = rospy.ServiceProxy("/hybridvla/safety/activate", SetBool)
        self._to_start = rospy.ServiceProxy("/hybridvla/robot/go_to_start", Trigger)
        self._report = rospy.ServiceProxy("/sim_rig/report", RigReport)
        self._scene = rospy.ServiceProxy("/sim_rig/reset_scene", ResetScene)
        self.observer = DemoObserver(folder)
        self.observer.wait()

    def report(self, instruction: str = "") -> RigReportResponse:
        """The rig's own `RigReport`; with an instruction, `task_done` says whether it is fulfilled."""
        answer = self._report(instruction)
        if not answer.success:
            raise HybridVLAError(answer.message)
        return answer

    def prepare(self, seed: int, fresh: bool) -> None:
        """Back to the start pose, and a new scene if asked for; every episode begins with it."""
        activation.when_willing("go_to_start", self._to_start, self._resume)
        if fresh:
            answer = self._scene(seed)
            if not answer.success:
                raise HybridVLAError(f"reset_scene: {answer.message}")
            time.sleep(0.3)

    def instruct(self, instruction: str) -> None:
        answer = self._set_instruction(instruction, False)
        if not answer.success:
            raise HybridVLAError(f"set_instruction: {answer.message}")
        self.observer.instruction = instruction

    def episode(self, instruction: str, second: Optional[str]) -> Dict[str, Any]:
        """One episode; success is judged by the rig, for the second instruction where there is one.

        Where the filter stops, its sentence is printed and kept, and the operator resumes, a few times.

        Args:
            instruction: At the beginning.
            second: Given in the middle; None: the first one stays.

        Returns:
            The episode's row of the summary.

        Raises:
            HybridVLAError: A service refuses for good.
        """
        self.instruct(instruction)
        self._follow()
        started, success, held = time.monotonic(), False, 0
        stops: List[str] = []
        switched: Optional[float] = None
        while time.monotonic() - started < patience(EPISODE_TIMEOUT_S):
            time.sleep(0.1)
            elapsed = time.monotonic() - started
            if self.observer.stopped and len(stops) < MOST_STOPS:
                stops.append(self.observer.stopped)
                print(f"  {stops[-1]}: done", flush=True)
                self._follow()
            if second and switched is None:
                if elapsed > SWITCH_AFTER_S:
                    self.instruct(second)
                    switched = elapsed
                continue
            held = held + 1 if self.report(second or instruction).task_done else 0
            if held >= 3:
                success = True
                break
        self._activate(False)
        return {"instruction": second or instruction, "first_instruction": instruction if second else None,
                "success": success, "stops": stops, "seconds": round(time.monotonic() - started, 1)}

    def _follow(self) -> None:
        activation.when_willing("activate", lambda: self._activate(True), self._resume)
        self.observer.stopped = ""           # until a status says it anew


def run(folder: Path, port: Optional[int], checkpoint: str) -> Dict[str, Any]:
    """All episodes; returns the summary in out/demo."""
    from hybridvla_ros.demos.demo_page import write_page

    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with Graph(folder / "logs", port) as graph:
        print(f"ROS master on 127.0.0.1:{graph.port}; starting the simulated rig, the policy and the filter")
        graph.launch("sim.launch", f"checkpoint:={checkpoint}", f"seed:={EPISODES[0][0]}")
        graph.wait_for_master()
        bag = graph.start(["rosbag", "record", "-O", str(folder / "demo.bag"), "--lz4", *BAG_TOPICS], "rosbag.log")
        demo = _connect(graph, folder)
        results: List[Dict[str, Any]] = []
        seed_before = EPISODES[0][0]
        try:
            for index, (seed, instruction, second) in enumerate(EPISODES):
                demo.prepare(seed, fresh=seed != seed_before)
                seed_before = seed
                demo.observer.episode(index + 1)
                results.append(dict(demo.episode(instruction, second), scene_seed=seed))
                row = results[-1]
                print(f"episode {index + 1}/{len(EPISODES)}: {'success' if row['success'] else 'FAILURE'} in "
                      f"{row['seconds']} s: {instruction}{' -> ' + second if second else ''}", flush=True)
            report = demo.report()
        finally:
            recorded = demo.observer.close()
        graph.end(bag)
    summary = summarise(results, report, recorded)
    summary["seconds"] = round(time.monotonic() - started, 1)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    write_page(folder, summary, recorded)
    return summary


def _connect(graph: Graph, folder: Path) -> Demo:
    import rospy

    try:
        return Demo(folder)
    except rospy.ROSException as error:
        detail = graph.log_tail()
        raise HybridVLAError(f"the nodes did not come up ({error}); the end of their log:\n{detail}") from error


def summarise(results: List[Dict[str, Any]], report: RigReportResponse, recorded: Recorded) -> Dict[str, Any]:
    from hybridvla_core.report.statistics import percentiles

    tasks: Dict[str, Dict[str, int]] = {}
    for row in results:
        entry = tasks.setdefault(row["instruction"], {"episodes": 0, "successes": 0})
        entry["episodes"] += 1
        entry["successes"] += row["success"]
    wins, details = sum(row["success"] for row in results), json.loads(report.report)
    predictions = len(recorded.predictions)
    fused = sum(row["fused"] for row in recorded.predictions)
    return {"episodes": len(results), "successes": wins, "success_rate": round(wins / len(results), 4),
            "per_instruction": tasks, "instruction_switches": sum(row["first_instruction"] is not None for row in results),
            "predictions": predictions, "prediction_ms": percentiles([row["ms"] for row in recorded.predictions]),
            "filter_tick_ms": percentiles(recorded.tick_ms),
            "fused_share": round(fused / predictions, 4) if predictions else 0.0,
            "interventions": recorded.interventions, "limit_violations": int(report.limit_violations),
            "violations_by_name": details["violations_by_name"], "last_violation": details["last_violation"],
            "targets": int(report.targets), "rows": results}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(ROOT / "out" / "demo"))
    parser.add_argument("--port", type=int, help="of the private ROS master; a free one when left out")
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "tiny"))
    arguments = parser.parse_args()
    return carry_out("demo", lambda: demonstrate(Path(arguments.out), arguments.port, arguments.checkpoint))


def demonstrate(folder: Path, port: Optional[int], checkpoint: str) -> int:
    """Runs the demo anew and says what came of it; 0 where enough succeeded and no limit was broken."""
    from hybridvla_core.checkpoints.format import read_checkpoint

    read_checkpoint(Path(checkpoint))
    renew_folder(folder, "the demo")
    summary = run(folder, port, checkpoint)
    if summary["limit_violations"]:
        print(f"limits broken: {summary['violations_by_name']}, the last one {summary['last_violation']}", file=sys.stderr)
    print(f"{summary['successes']}/{summary['episodes']} episodes successful, {summary['limit_violations']} limit "
          f"violations; look at {folder / 'index.html'}")
    enough = summary["success_rate"] >= 0.66 and summary["limit_violations"] == 0
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
