"""The FR3 half of `make rigs`: `fr3.launch rig:=stand_in` with the shipped checkpoint, episode by episode, by services only.

The stand-in is stopped by a reflex in the middle of the last episode and recovered as a person would.
"""
from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.graph import Graph

EPISODES = ((3_000_001, "put the red block on the green pad", False), (3_000_002, "put the red block on the yellow pad", False),
            (3_000_003, "put the green block on the green pad", True))
EPISODE_TIMEOUT_S = 70.0
REFLEX_AFTER_S = 3.0
DEADMAN_S = 0.03
STATES = ("INACTIVE", "ACTIVE", "HOLDING", "STOPPED", "RECOVERING")


class Fr3Operator:
    """The person at the rig: holds the deadman, activates, instructs, recovers. Services and topics only."""

    def __init__(self) -> None:
        import rospy
        from std_msgs.msg import Bool
        from std_srvs.srv import SetBool, Trigger

        from hybridvla.msg import PolicyHeartbeat, SafetyStatus
        from hybridvla.srv import ResetScene, RigReport, SetInstruction, SetPayload

        self._rospy, self._bool = rospy, Bool
        self.pressed = True
        self.status: Any = None
        self.heartbeat: Any = None
        self.events: List[Tuple[float, str]] = []
        self._began, self._said = time.monotonic(), ""
        self._deadman = rospy.Publisher("/hybridvla/safety/deadman", Bool, queue_size=1)
        rospy.Subscriber("/hybridvla/safety/status", SafetyStatus, self._on_status, queue_size=50)
        rospy.Subscriber("/hybridvla/policy/heartbeat", PolicyHeartbeat, lambda m: setattr(self, "heartbeat", m))
        for name in ("/hybridvla/safety/activate", "/stand_in/report"):
            rospy.wait_for_service(name, timeout=60.0)
        proxy = rospy.ServiceProxy
        self.activate = proxy("/hybridvla/safety/activate", SetBool)
        self.report = proxy("/stand_in/report", RigReport)
        self.scene = proxy("/stand_in/reset_scene", ResetScene)
        self.instruct = proxy("/hybridvla/policy/set_instruction", SetInstruction)
        self.set_payload = proxy("/hybridvla/robot/set_payload", SetPayload)
        self.takeover = proxy("/hybridvla/robot/takeover", SetBool)
        for name in ("safety/stop", "safety/resume", "robot/recover", "robot/go_to_start"):
            setattr(self, name.split("/")[1], proxy(f"/hybridvla/{name}", Trigger))
        for name in ("user_stop", "guiding", "gripper_stuck", "ee_frame", "push", "state_silent"):
            setattr(self, name, proxy(f"/stand_in/{name}", SetBool))
        for name in ("reflex", "drop_object"):
            setattr(self, name, proxy(f"/stand_in/{name}", Trigger))
        threading.Thread(target=self._press, daemon=True).start()

    def _press(self) -> None:
        while not self._rospy.is_shutdown():
            try:
                if self.pressed:
                    self._deadman.publish(self._bool(True))
            except self._rospy.ROSException:
                return      # shutting down between the look and the call
            time.sleep(DEADMAN_S)

    def _on_status(self, message: Any) -> None:
        said = f"{STATES[message.state]}: {message.message}"
        if said != self._said:
            self._said = said
            self.note(said)
        self.status = message

    def note(self, text: str) -> None:
        """A line of what happened, s since the start."""
        self.events.append((round(time.monotonic() - self._began, 2), text))

    def state(self, *names: str) -> bool:
        return self.status is not None and STATES[self.status.state] in names

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 30.0) -> None:
        """Raises HybridVLAError when the condition does not come true."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise HybridVLAError(f"{what} did not come within {timeout:.0f} s; the filter says: "
                                     f"{self.status.message if self.status else 'nothing'}")
            time.sleep(0.02)

    def rig(self) -> Dict[str, Any]:
        """The stand-in's own report."""
        return json.loads(self.report("").report)

    def answered(self, service: Callable[..., Any], *arguments: Any, what: str, timeout: float = 40.0) -> None:
        """Call until it succeeds; what it says meanwhile is noted."""
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
        """From whatever state to inactive at the start pose, with a new scene if asked for."""
        self.until(lambda: self.status is not None, "a status", 60.0)
        self.until(lambda: not self.state("STOPPED") or self.resume().success, "resume")
        self.activate(False)
        self.until(lambda: self.state("INACTIVE"), "INACTIVE")
        self.answered(self.go_to_start, what="go_to_start")
        if seed is not None:
            self.scene(seed)
            time.sleep(0.3)


def episode(operator: Fr3Operator, seed: int, instruction: str, reflex: bool) -> Dict[str, Any]:
    """One task; the stand-in judges."""
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
    """The part `fr3` of `make rigs`' summary (design, "Results for machines"); logs in `folder`."""
    import rospy

    with Graph(folder / "logs", port) as graph:
        # As on two computers: driver and filter in one launch, the policy in another.
        graph.launch("fr3.launch", "rig:=stand_in", "speed_scale:=1.0", "policy:=false")
        graph.wait_for_master()
        graph.launch("fr3.launch", "robot:=false")
        rospy.init_node("hybridvla_rigs", anonymous=True, disable_signals=True)
        from hybridvla_ros.rigs_timing import StampToTarget

        try:
            operator, timing = Fr3Operator(), StampToTarget("/camera_front/color/image_raw")
            operator.until(lambda: operator.heartbeat is not None and not operator.heartbeat.warming_up,
                           "a policy that is READY", 90.0)
        except (rospy.ROSException, HybridVLAError) as error:
            raise HybridVLAError(f"the FR3 rig did not come up ({error}); the end of its log:\n{graph.log_tail()}") from error
        rows = [episode(operator, *what) for what in EPISODES[:episodes]]
        answer, report = operator.report(""), operator.rig()
        counters = dict(zip(operator.status.counter_names, operator.status.counters))
        return {"episodes": len(rows), "successes": sum(row["success"] for row in rows),
                "limit_violations": int(answer.limit_violations), "violations_by_name": report["violations_by_name"],
                "last_violation": report["last_violation"], "commands": int(answer.targets),
                "policy": "checkpoints/tiny (front camera)", "views": 2, "stiffness": report["stiffness"],
                "collision_force_n": report["upper_force"], **timing.result(), "counters": counters, "rows": rows,
                "events": operator.events}
