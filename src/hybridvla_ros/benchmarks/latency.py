"""`python -m hybridvla_ros.benchmarks.latency`: camera stamp to target published, with the real policy node and filter.

Three 640x480 cameras at 30 fps, each in its own process, a policy that takes no time, the simulated FR3 with its own
cameras off and joint states at the rate that fr3.launch requests from a real one. What is left is the transport of the images,
sync, conversion, the proposal's way, and the filter's tick. Measured twice: with an arm at rest when the proposal comes,
as between keyframes, where the filter begins at once, and with a moving arm, where the filter waits for its next tick.
"""
from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Union

import numpy as np
import yaml

from hybridvla_core.configuration import read_mapping
from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import write_json
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.graph_names import ACTIVATE, SET_INSTRUCTION
from hybridvla_ros.runtime.node_support import run_node
from hybridvla_ros.runtime.private_graph import Graph
from hybridvla_ros.stand_ins.still_camera import start_still_cameras

VIEWS = ("front", "wrist", "left")
HEIGHT, WIDTH, FPS = 480, 640, 30
STATE_HZ = 333          # what franka_state_controller makes of publish_rate 400
STROKE_M, STROKE_S = 0.1, 2.0
POLICY, ROBOT = "config/policies/tiny.yaml", "config/robots/sim_fr3.yaml"


def policy_config() -> Dict[str, Any]:
    """Returns the shipped policy's configuration with three views and one action per frame."""
    config = dict(read_mapping(ROOT / POLICY))
    config["cameras"] = [{"view": view, "image_topic": f"/bench/{view}", "width_px": WIDTH, "height_px": HEIGHT}
                         for view in VIEWS]
    config["convention"] = dict(config["convention"], action_period_s=1.0 / FPS)
    config["prediction_rate_hz"] = 100.0
    return config


class NoTime:
    """A policy with the interface of `Policy`; it stays where it is, or goes back and forth when the instruction is `move`."""

    cameras, manifest_sha256 = VIEWS, "0" * 64

    def __init__(self) -> None:
        from hybridvla_core.configuration import from_mapping
        from hybridvla_core.policy.config import PolicyConfig

        self.convention = from_mapping(PolicyConfig, policy_config(), "bench").convention

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        action = np.zeros((1, 7))
        action[0, 3:] = observation.state[3:]
        if observation.instruction == "move":
            now = observation.stamp_ns * 1e-9 % (2.0 * STROKE_S)
            action[0, 1] = STROKE_M / STROKE_S / FPS * (1.0 if now < STROKE_S else -1.0)
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action)


def policy() -> None:
    from hybridvla_ros import policy_node

    policy_node.main(NoTime())


def measure(seconds: float) -> Dict[str, Any]:
    """Runs the graph for `seconds` s with an arm at rest and as long with a moving arm."""
    with tempfile.TemporaryDirectory() as name, Graph(Path(name)) as graph:
        path = Path(name) / "policy.yaml"
        path.write_text(yaml.safe_dump(policy_config()))
        graph.launch("sim.launch", "policy:=false", "image_hz:=0.5", f"state_hz:={STATE_HZ}")
        graph.wait_for_master()
        start_still_cameras(graph, [f"/bench/{view}" for view in VIEWS], WIDTH, HEIGHT, FPS)
        graph.start([sys.executable, "-m", "hybridvla_ros.benchmarks.latency", "--policy", f"_policy_config:={path}",
                     f"_robot_config:={ROBOT}"], "policy.log")
        import rospy

        rospy.init_node("bench_latency", disable_signals=True)
        try:
            results = {key: _phase(instruction, seconds) for key, instruction in (("at_rest", "stay"), ("moving", "move"))}
        except (rospy.ROSException, rospy.ServiceException) as error:
            raise HybridVLAError(f"the graph did not come up ({error}); the end of its log:\n{graph.log_tail()}") from error
    if not all(result["executed"] for result in results.values()):
        raise HybridVLAError("no proposal was executed; run `make demo` to see whether the graph works here")
    return {**results, "views": len(VIEWS), "size": [WIDTH, HEIGHT], "fps": FPS, "seconds": seconds}


def _phase(instruction: str, seconds: float) -> Dict[str, Any]:
    """Returns figures of `seconds` s with one instruction; `begun_early`: the share for which a tick was brought forward."""
    import rospy
    from std_srvs.srv import SetBool

    from hybridvla.srv import SetInstruction
    from hybridvla_ros.benchmarks.stamp_to_target import StampToTarget

    for service in (ACTIVATE, SET_INSTRUCTION):
        rospy.wait_for_service(service, 60)
    activate, deadline = rospy.ServiceProxy(ACTIVATE, SetBool), time.monotonic() + 30
    answer = rospy.ServiceProxy(SET_INSTRUCTION, SetInstruction)(instruction, False)
    if not answer.success:
        raise HybridVLAError(f"the instruction was refused: {answer.message}")
    answer = activate(True)
    while not answer.success:
        if time.monotonic() > deadline:
            raise HybridVLAError(f"the filter cannot be activated: {answer.message}")
        time.sleep(0.2)
        answer = activate(True)
    time.sleep(2.0)
    before = _early_ticks()
    with StampToTarget() as timing:
        time.sleep(seconds)
    result = timing.result()
    return {**result, "begun_early": round((_early_ticks() - before) / max(1, result["executed"]), 2)}


def _early_ticks() -> int:
    """Returns the filter's early ticks since its start, from its diagnostics, which come once a second."""
    import rospy
    from diagnostic_msgs.msg import DiagnosticArray

    for _ in range(50):
        for status in rospy.wait_for_message("/diagnostics", DiagnosticArray, 10.0).status:
            if status.name.endswith(": filter"):
                return int(next(entry.value for entry in status.values if entry.key == "early"))
    raise HybridVLAError("the filter publishes no diagnostics")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hybridvla_ros.benchmarks.latency", description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures, ms, to this file")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--policy", action="store_true", help=argparse.SUPPRESS)
    arguments, _remappings = parser.parse_known_args()
    if arguments.policy:
        run_node("policy_node", policy)
        return 0
    try:
        result = measure(arguments.seconds)
    except HybridVLAError as error:
        print(f"bench_latency: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result, indent=1))
    write_json(arguments.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
