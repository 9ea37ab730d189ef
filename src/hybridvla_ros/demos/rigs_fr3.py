"""The FR3 half of `make rigs`: `fr3.launch rig:=stand_in` with the shipped checkpoint, episode by episode, by services only.

A reflex stops the stand-in in the middle of the last episode; it is recovered as a person would recover it.
"""
from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Dict, Optional

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.demos.rigs_operator import RigOperator
from hybridvla_ros.runtime.private_graph import Graph

EPISODES = ((3_000_001, "put the red block on the green pad", False), (3_000_002, "put the red block on the yellow pad", False),
            (3_000_003, "put the green block on the green pad", True))
EPISODE_TIMEOUT_S = 70.0
REFLEX_AFTER_S = 3.0


class Fr3Operator(RigOperator):
    """The person at the FR3: also recovers, hands over, sets the payload; and the hand that causes its faults."""

    def __init__(self) -> None:
        super().__init__("/stand_in")
        from std_srvs.srv import SetBool, Trigger

        from hybridvla.srv import SetPayload

        proxy = self._rospy.ServiceProxy
        self.set_payload = proxy("/hybridvla/robot/set_payload", SetPayload)
        self.takeover = proxy("/hybridvla/robot/takeover", SetBool)
        self.recover = proxy("/hybridvla/robot/recover", Trigger)
        for name in ("user_stop", "guiding", "gripper_stuck", "ee_frame", "push", "state_silent"):
            setattr(self, name, proxy(f"/stand_in/{name}", SetBool))
        for name in ("reflex", "drop_object"):
            setattr(self, name, proxy(f"/stand_in/{name}", Trigger))


def episode(operator: Fr3Operator, seed: int, instruction: str, reflex: bool) -> Dict[str, Any]:
    """Runs one task; the stand-in judges."""
    operator.begin(seed)
    operator.note(f"episode: {instruction}, scene {seed}")
    operator.instruct(instruction, False)
    operator.answered(operator.activate, True, what="activate")
    began, done, hit = time.monotonic(), 0, not reflex
    while time.monotonic() - began < EPISODE_TIMEOUT_S and done < 3:
        time.sleep(0.1)
        if not hit and time.monotonic() - began > REFLEX_AFTER_S:
            hit = True
            operator.reflex()
            operator.note("a collision reflex stops the robot")
            operator.until(lambda: operator.state("STOPPED"), "STOPPED")
            operator.answered(operator.recover, what="recover")
            operator.answered(operator.resume, what="resume")
        done = done + 1 if operator.report(instruction).task_done else 0
    operator.activate(False)
    return {"seed": seed, "instruction": instruction, "reflex": reflex, "success": done >= 3,
            "seconds": round(time.monotonic() - began, 1)}


def run(folder: Path, episodes: int = len(EPISODES), port: Optional[int] = None) -> Dict[str, Any]:
    """Runs the part `fr3` of `make rigs` and returns its summary in out/rigs; logs go to `folder`."""
    import rospy

    with Graph(folder / "logs", port) as graph:
        # As on two computers: driver and filter in one launch, the policy in another.
        graph.launch("fr3.launch", "rig:=stand_in", "speed_scale:=1.0", "policy:=false")
        graph.wait_for_master()
        graph.launch("fr3.launch", "rig:=stand_in", "robot:=false")
        rospy.init_node("hybridvla_rigs", anonymous=True, disable_signals=True)
        from hybridvla_ros.benchmarks.stamp_to_target import StampToTarget

        try:
            operator = Fr3Operator()
            operator.until(lambda: operator.heartbeat is not None and not operator.heartbeat.warming_up,
                           "a policy that is READY", 90.0)
        except (rospy.ROSException, HybridVLAError) as error:
            raise HybridVLAError(f"the FR3 rig did not come up ({error}); the end of its log:\n{graph.log_tail()}") from error
        with StampToTarget() as timing:
            rows = [episode(operator, *what) for what in EPISODES[:episodes]]
        answer, report = operator.report(""), operator.rig()
        counters = operator.status.counters if operator.status is not None else {}
        return {"episodes": len(rows), "successes": sum(row["success"] for row in rows),
                "limit_violations": int(answer.limit_violations), "violations_by_name": report["violations_by_name"],
                "last_violation": report["last_violation"], "commands": int(answer.targets),
                "policy": "checkpoints/tiny", "views": 2, "views_used": 1, "stiffness": report["stiffness"],
                "collision_force_n": report["upper_force"], **timing.result(), "counters": counters, "rows": rows,
                "events": operator.events}
