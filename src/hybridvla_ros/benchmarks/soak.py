"""`make soak`: the filter's rate and its longest gap beside the simulated rig and the running policy.

Once for each scheduler that is asked for; the filter itself says which one it got. Results in out/soak/summary.json.
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import write_json
from hybridvla_core.robots.graph_names import ACTIVATE, PROPOSAL, SET_INSTRUCTION
from hybridvla_ros.runtime.pacing import SCHEDULERS
from hybridvla_ros.runtime.private_graph import Graph

if TYPE_CHECKING:
    from diagnostic_msgs.msg import DiagnosticArray

    from hybridvla.msg import ActionProposal

INSTRUCTIONS = ("put the red block on the green pad", "put the blue block on the yellow pad")
SWITCH_S = 15.0
PATIENCE_S = 120.0


class Soak:
    """Keeps the policy busy and reads what the filter reports about itself, by services and topics only."""

    def __init__(self) -> None:
        import rospy
        from diagnostic_msgs.msg import DiagnosticArray
        from std_srvs.srv import SetBool

        from hybridvla.msg import ActionProposal
        from hybridvla.srv import RigReport, SetInstruction

        self.filter: Dict[str, str] = {}
        self.proposals = 0
        rospy.init_node("soak", anonymous=True, disable_signals=True)
        rospy.Subscriber("/diagnostics", DiagnosticArray, self._on_diagnostics)
        rospy.Subscriber(PROPOSAL, ActionProposal, self._on_proposal)
        for name in (SET_INSTRUCTION, ACTIVATE, "/sim_rig/report"):
            rospy.wait_for_service(name, timeout=PATIENCE_S)
        self._instruct = rospy.ServiceProxy(SET_INSTRUCTION, SetInstruction)
        self._activate = rospy.ServiceProxy(ACTIVATE, SetBool)
        self._report = rospy.ServiceProxy("/sim_rig/report", RigReport)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for entry in message.status:
            if entry.name == "safety_filter_node: filter":
                self.filter = {item.key: item.value for item in entry.values}

    def _on_proposal(self, _message: ActionProposal) -> None:
        self.proposals += 1

    def run(self, seconds: float) -> Dict[str, Any]:
        """Runs for `seconds`; returns rate and gaps in that time, and the longest gap since the filter started."""
        deadline = time.monotonic() + PATIENCE_S
        answer = None
        while "ticks" not in self.filter or not (answer and answer.success):
            if time.monotonic() > deadline:
                raise HybridVLAError(f"the filter did not start moving: {answer and answer.message}; see out/soak")
            answer = self._activate(True)
            time.sleep(0.5)
        before, begin, count = dict(self.filter), time.monotonic(), self.proposals
        index = 0
        while time.monotonic() - begin < seconds:
            self._instruct(INSTRUCTIONS[index % len(INSTRUCTIONS)], False)
            index += 1
            self._say(begin, seconds)
            time.sleep(min(SWITCH_S, max(0.0, seconds - (time.monotonic() - begin))))
        time.sleep(1.1)
        after = dict(self.filter)
        return {"scheduler": after["scheduler"], "seconds": round(time.monotonic() - begin, 1),
                "rate_hz": round((int(after["ticks"]) - int(before["ticks"])) / self._between(before, after), 2),
                "longest_gap_ms": float(after["longest_gap_ms"]), "overruns": int(after["overruns"]) - int(before["overruns"]),
                "gaps": {key: int(after[key]) - int(before[key]) for key in after if key.startswith("gaps_")},
                "proposals": self.proposals - count, "limit_violations": self._report("").limit_violations}

    @staticmethod
    def _between(before: Dict[str, str], after: Dict[str, str]) -> float:
        """Returns the seconds, by the filter's own clock, between two of its reports."""
        def elapsed(report: Dict[str, str]) -> float:
            return (int(report["ticks"]) - 1) / float(report["rate_hz"])
        return max(1e-9, elapsed(after) - elapsed(before))

    def _say(self, begin: float, seconds: float) -> None:
        print(f"  {time.monotonic() - begin:5.0f}/{seconds:.0f} s  {self.filter.get('rate_hz')} Hz  "
              f"longest gap {self.filter.get('longest_gap_ms')} ms  {self.proposals} proposals", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hybridvla_ros.benchmarks.soak", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="for each scheduler")
    parser.add_argument("--scheduler", choices=(*SCHEDULERS, "both"), default="both")
    parser.add_argument("--out", default="out/soak")
    arguments = parser.parse_args()
    if arguments.scheduler == "both":
        return max(_again(arguments, name) for name in SCHEDULERS)
    folder = Path(arguments.out)
    print(f"scheduler {arguments.scheduler}, {arguments.seconds:g} s:")
    with Graph(folder / arguments.scheduler) as graph:
        graph.launch("sim.launch", f"scheduler:={arguments.scheduler}")
        graph.wait_for_master()
        result = Soak().run(arguments.seconds)
    summary_file = folder / "summary.json"
    summary = json.loads(summary_file.read_text(encoding="utf-8")) if summary_file.exists() else {}
    summary[arguments.scheduler] = result
    write_json(summary_file, summary)
    print(json.dumps(result))
    return 0


def _again(arguments: argparse.Namespace, scheduler: str) -> int:
    """Runs each scheduler in its own process: rospy knows one master per process."""
    import subprocess

    return subprocess.run([sys.executable, "-m", "hybridvla_ros.benchmarks.soak", "--seconds", str(arguments.seconds), "--out",
                           arguments.out, "--scheduler", scheduler], check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HybridVLAError as error:
        print(f"soak: {error}", file=sys.stderr)
        sys.exit(1)
