"""`make demo`: the simulated FR3, the policy with the shipped checkpoint and the filter on a private ROS graph, headless.

Gives instructions by the service, switches two of six in the middle of their episodes, and leaves a summary, a bag, a video and a
page in out/demo. A checkpoint of several tasks is shown at several of them, with one launch of the rig for each.
"""
from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import renew_folder
from hybridvla_core.paths import ROOT
from hybridvla_ros.demos import activation
from hybridvla_ros.demos.command import carry_out
from hybridvla_ros.demos.demo_episodes import Shown, policy_config, shown
from hybridvla_ros.runtime.patience import patience
from hybridvla_ros.runtime.private_graph import Graph

if TYPE_CHECKING:
    from hybridvla.srv import RigReportResponse
    from hybridvla_ros.demos.demo_record import Recorded

BAG_TOPICS = ["/joint_states", "/camera_front/color/image_raw/compressed", "/camera_wrist/color/image_raw/compressed",
              "/camera_front/color/camera_info", "/cartesian_impedance_example_controller/equilibrium_pose",
              "/sim_rig/tool_pose", "/sim_rig/gripper/command", "/hybridvla/policy/proposal", "/hybridvla/policy/heartbeat",
              "/hybridvla/policy/instruction", "/hybridvla/safety/status", "/diagnostics"]
SWITCH_AFTER_S = 3.0
EPISODE_TIMEOUT_S = 45.0


class Demo:
    """Talks to the graph as an operator would: by services and topics only."""

    def __init__(self, folder: Path) -> None:
        import rospy
        from std_srvs.srv import SetBool, Trigger

        from hybridvla.srv import ResetScene, RigReport, SetInstruction
        from hybridvla_ros.demos.demo_record import DemoObserver

        rospy.init_node("hybridvla_demo", anonymous=True, disable_signals=True)
        self.wait()
        self._set_instruction = rospy.ServiceProxy("/hybridvla/policy/set_instruction", SetInstruction)
        self._resume = rospy.ServiceProxy("/hybridvla/safety/resume", Trigger)
        self._activate = rospy.ServiceProxy("/hybridvla/safety/activate", SetBool)
        self._to_start = rospy.ServiceProxy("/hybridvla/robot/go_to_start", Trigger)
        self._report = rospy.ServiceProxy("/sim_rig/report", RigReport)
        self._scene = rospy.ServiceProxy("/sim_rig/reset_scene", ResetScene)
        self.observer = DemoObserver(folder)
        self.observer.wait()

    def wait(self) -> None:
        """Waits until rig, policy and filter answer."""
        import rospy

        for name in ("/hybridvla/policy/set_instruction", "/hybridvla/safety/activate", "/sim_rig/report"):
            rospy.wait_for_service(name, timeout=patience(60.0))

    def report(self, instruction: str = "") -> RigReportResponse:
        """Returns the rig's own `RigReport`; with an instruction, `task_done` says whether it is fulfilled."""
        answer = self._report(instruction)
        if not answer.success:
            raise HybridVLAError(answer.message)
        return answer

    def prepare(self, seed: int, fresh: bool) -> None:
        """Goes back to the start pose, and sets a new scene if asked for; every episode begins with this."""
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

    def episode(self, instruction: str, second: Optional[str], timeout: Optional[float] = None) -> Dict[str, Any]:
        """Runs one episode; the rig judges success, for the second instruction if there is one.

        Where the filter stops, its sentence is printed and kept, and the operator resumes, at most a few times.

        Args:
            instruction: Instruction at the beginning.
            second: Instruction given in the middle; None: the first one stays.
            timeout: Time limit on an idle computer, s; `EPISODE_TIMEOUT_S` when None.

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
        while time.monotonic() - started < patience(timeout or EPISODE_TIMEOUT_S):
            time.sleep(0.1)
            elapsed = time.monotonic() - started
            if self.observer.stopped and len(stops) < activation.MOST_STOPS:
                stops.append(self.observer.stopped)
                print(f"  {stops[-1]}: done", flush=True)
                self._follow()
            if second and switched is None:
                if elapsed > SWITCH_AFTER_S:
                    self.instruct(second)
                    switched = elapsed
                continue
            held = held + 1 if self.report(second or instruction).task_done else 0
            if held >= activation.LOOKS:
                success = True
                break
        self._activate(False)
        return {"instruction": second or instruction, "first_instruction": instruction if second else None,
                "success": success, "stops": stops, "seconds": round(time.monotonic() - started, 1)}

    def _follow(self) -> None:
        activation.when_willing("activate", lambda: self._activate(True), self._resume)
        self.observer.stopped = ""           # until a status says it again


def run(folder: Path, port: Optional[int], checkpoint: str, episodes: Sequence[Shown], config: Path) -> Dict[str, Any]:
    """Runs all episodes, with one launch of the rig for each task; returns the summary in out/demo."""
    import rospy

    from hybridvla_ros.demos.demo_page import write_page

    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    demo: Optional[Demo] = None
    results: List[Dict[str, Any]] = []
    reports: List[RigReportResponse] = []
    with Graph(folder / "logs", port) as graph:
        print(f"ROS master on 127.0.0.1:{graph.port}; starting the simulated rig, the policy and the filter")
        graph.start(["roscore", "-p", str(graph.port)], "roscore.log")
        graph.wait_for_master()
        bag = graph.start(["rosbag", "record", "-O", str(folder / "demo.bag"), "--lz4", *BAG_TOPICS], "rosbag.log")
        try:
            for task, group in itertools.groupby(episodes, key=lambda episode: episode.task):
                wanted = list(group)
                launch = graph.launch("sim.launch", f"task:={task}", f"seed:={wanted[0].seed}", f"checkpoint:={checkpoint}",
                                      f"policy_config:={config}")
                try:
                    if demo is None:
                        demo = Demo(folder)
                    else:
                        demo.wait()
                        demo.observer.wait()
                except rospy.ROSException as error:
                    raise HybridVLAError(f"the nodes did not come up ({error}); the end of their log:\n"
                                         f"{graph.log_tail()}") from error
                _show(demo, wanted, results, len(episodes))
                reports.append(demo.report())
                if len(results) < len(episodes):
                    graph.end(launch)
                    demo.observer.relaunched()
        finally:
            recorded = demo.observer.close() if demo is not None else None
        graph.end(bag)
    assert recorded is not None, "without an episode there is an error"
    summary = summarise(results, reports, recorded)
    summary["seconds"] = round(time.monotonic() - started, 1)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    write_page(folder, summary, recorded)
    return summary


def _show(demo: Demo, episodes: Sequence[Shown], results: List[Dict[str, Any]], total: int) -> None:
    """Runs the episodes of the launched task; its first scene is set already."""
    before = episodes[0].seed
    for episode in episodes:
        demo.prepare(episode.seed, fresh=episode.seed != before)
        before = episode.seed
        demo.observer.episode(len(results) + 1)
        row = dict(demo.episode(episode.instruction, episode.second, episode.timeout_s), scene_seed=episode.seed,
                   task=episode.task)
        results.append(row)
        print(f"episode {len(results)}/{total}: {'success' if row['success'] else 'FAILURE'} in {row['seconds']} s: "
              f"{episode.instruction}{' -> ' + episode.second if episode.second else ''}", flush=True)


def summarise(results: List[Dict[str, Any]], reports: Sequence[RigReportResponse], recorded: Recorded) -> Dict[str, Any]:
    """Returns the contents of the demo's summary. reports: the rig's, one for each launch."""
    from hybridvla_core.report.statistics import percentiles

    tasks: Dict[str, Dict[str, int]] = {}
    for row in results:
        entry = tasks.setdefault(row["instruction"], {"episodes": 0, "successes": 0})
        entry["episodes"] += 1
        entry["successes"] += row["success"]
    wins, details = sum(row["success"] for row in results), [json.loads(report.report) for report in reports]
    broken: Counter = Counter()
    for detail in details:
        broken.update(detail["violations_by_name"])
    predictions = len(recorded.predictions)
    fused = sum(row["fused"] for row in recorded.predictions)
    return {"episodes": len(results), "successes": wins, "success_rate": round(wins / len(results), 4),
            "per_instruction": tasks, "instruction_switches": sum(row["first_instruction"] is not None for row in results),
            "predictions": predictions, "prediction_ms": percentiles([row["ms"] for row in recorded.predictions]),
            "filter_tick_ms": percentiles(recorded.tick_ms),
            "fused_share": round(fused / predictions, 4) if predictions else 0.0,
            "interventions": recorded.interventions, "limit_violations": sum(int(report.limit_violations) for report in reports),
            "violations_by_name": dict(broken),
            "last_violation": next((detail["last_violation"] for detail in reversed(details) if detail["last_violation"]), ""),
            "targets": sum(int(report.targets) for report in reports), "rows": results}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(ROOT / "out" / "demo"))
    parser.add_argument("--port", type=int, help="port of the private ROS master (default: a free one)")
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "tiny"))
    arguments = parser.parse_args()
    return carry_out("demo", lambda: demonstrate(Path(arguments.out), arguments.port, arguments.checkpoint))


def demonstrate(folder: Path, port: Optional[int], checkpoint: str) -> int:
    """Runs the demo anew and prints its result; returns 0 where enough succeeded and no limit was broken."""
    from hybridvla_core.checkpoints.format import read_checkpoint
    from hybridvla_core.contracts import Mode
    from hybridvla_core.evaluation.suite import load_configs
    from hybridvla_core.policy.fit import check_fit
    from hybridvla_sim.rigs import RIGS

    found = read_checkpoint(Path(checkpoint))
    episodes, left_out = shown(Path(checkpoint), found)
    config = policy_config(found)
    check_fit(found.config, *load_configs(config, RIGS["fr3"].robot, Mode.ENSEMBLE.name.lower()))
    renew_folder(folder, "the demo")
    for why in left_out.values():
        print(f"left out: {why}")
    summary = run(folder, port, str(Path(checkpoint).resolve()), episodes, config)
    if summary["limit_violations"]:
        print(f"limits broken: {summary['violations_by_name']}, the last one {summary['last_violation']}", file=sys.stderr)
    print(f"{summary['successes']}/{summary['episodes']} episodes successful, {summary['limit_violations']} limit "
          f"violations; look at {folder / 'index.html'}")
    enough = summary["success_rate"] >= 0.66 and summary["limit_violations"] == 0
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
