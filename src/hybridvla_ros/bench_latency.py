"""`python -m hybridvla_ros.bench_latency`: camera stamp to target published, with the real policy node and filter.

Three 640x480 cameras at 30 fps from a process of their own, a policy that takes no time, the simulated FR3 with its own
cameras off and joint states at 200 Hz, as the rigs have to bring them. What is left is the transport of the images, sync,
conversion, the proposal's way, and the filter's tick.
"""
from __future__ import annotations

import argparse
import io
import json
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict

import numpy as np
import yaml

from hybridvla_core.configuration import read_mapping
from hybridvla_core.contracts import Mode, Prediction
from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.graph import Graph
from hybridvla_ros.node_support import PACKAGE_ROOT, run_node

VIEWS = ("front", "wrist", "left")
HEIGHT, WIDTH, FPS = 480, 640, 30
POLICY, ROBOT = "config/policies/tiny.yaml", "config/robots/sim_fr3.yaml"


def policy_config() -> Dict[str, Any]:
    """The shipped policy's configuration with three views and one action a frame."""
    config = dict(read_mapping(PACKAGE_ROOT / POLICY))
    config["cameras"] = [{"view": view, "image_topic": f"/bench/{view}", "width_px": WIDTH, "height_px": HEIGHT}
                         for view in VIEWS]
    config["convention"] = dict(config["convention"], action_period_s=1.0 / FPS)
    config["prediction_rate_hz"] = 100.0
    return config


class NoTime:
    """The interface of `Policy`; it stays where it is."""

    cameras, manifest_sha256 = VIEWS, "0" * 64

    def __init__(self) -> None:
        from hybridvla_core.configuration import from_mapping
        from hybridvla_core.policy.config import PolicyConfig

        self.convention = from_mapping(PolicyConfig, policy_config(), "bench").convention

    def predict(self, observation: Any, mode: Any = None, seed: int = 0) -> Prediction:
        action = np.zeros((1, 7))
        action[0, 3:] = observation.state[3:]
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action)


def cameras() -> None:
    """Publish all views, one after the other, as a driver of several cameras does. A frame is put together once and only
    its stamp is new: what a driver in C++ needs for that is little, what Python needs is not."""
    import rospy
    from sensor_msgs.msg import Image

    from hybridvla_ros.images import from_rgb

    class Still(Image):
        """Bytes ready to be sent, but for sequence and stamp: the three numbers at their beginning."""

        __slots__ = ["ready"]

        def serialize(self, buff: Any) -> None:
            buff.write(struct.pack("<III", self.header.seq, self.header.stamp.secs, self.header.stamp.nsecs))
            buff.write(self.ready)

    whole, frame = io.BytesIO(), Still()
    from_rgb(np.zeros((HEIGHT, WIDTH, 3), np.uint8), rospy.Time(1), "bench").serialize(whole)
    frame.ready = whole.getvalue()[struct.calcsize("<III"):]
    publishers = [rospy.Publisher(f"/bench/{view}", Image, queue_size=1, tcp_nodelay=True) for view in VIEWS]
    rate = rospy.Rate(FPS)
    while not rospy.is_shutdown():
        for publisher in publishers:
            frame.header.stamp = rospy.Time.now()
            publisher.publish(frame)
        rate.sleep()


def policy() -> None:
    from hybridvla_ros import policy_node

    policy_node.main(NoTime())


def measure(seconds: float) -> Dict[str, Any]:
    """Run the graph for `seconds` s of activity."""
    with tempfile.TemporaryDirectory() as name, Graph(Path(name)) as graph:
        path = Path(name) / "policy.yaml"
        path.write_text(yaml.safe_dump(policy_config()))
        graph.launch("sim.launch", "policy:=false", "image_hz:=0.5", "state_hz:=200")
        graph.wait_for_master()
        this = [sys.executable, "-m", "hybridvla_ros.bench_latency", "--role"]
        graph.start([*this, "cameras"], "cameras.log")
        graph.start([*this, "policy", f"_policy_config:={path}", f"_robot_config:={ROBOT}"], "policy.log")
        import rospy
        from std_srvs.srv import SetBool

        from hybridvla.msg import ActionProposal
        from hybridvla.srv import SetInstruction
        from hybridvla_core.evaluation.statistics import percentiles
        from hybridvla_ros.rigs_timing import StampToTarget

        rospy.init_node("bench_latency", disable_signals=True)
        for service in ("/hybridvla/safety/activate", "/hybridvla/policy/set_instruction"):
            rospy.wait_for_service(service, 60)
        activate, deadline = rospy.ServiceProxy("/hybridvla/safety/activate", SetBool), time.monotonic() + 30
        rospy.ServiceProxy("/hybridvla/policy/set_instruction", SetInstruction)("stay", False)
        answer = activate(True)
        while not answer.success:
            if time.monotonic() > deadline:
                raise HybridVLAError(f"the filter cannot be activated: {answer.message}")
            time.sleep(0.2)
            answer = activate(True)
        time.sleep(2.0)
        timing, ages = StampToTarget("/bench/front"), []
        rospy.Subscriber("/hybridvla/policy/proposal", ActionProposal, lambda m: ages.append(m.observation_age.to_sec() * 1e3))
        time.sleep(seconds)
        result = dict(timing.result(), stamp_to_proposal_ms=percentiles(ages))
    if not result["executed"]:
        raise HybridVLAError("no proposal was executed; run `make demo` to see whether the graph works here")
    return {**result, "views": len(VIEWS), "size": [WIDTH, HEIGHT], "fps": FPS, "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hybridvla_ros.bench_latency", description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures, ms, to this file")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--role", choices=("cameras", "policy"), help=argparse.SUPPRESS)
    arguments, _remappings = parser.parse_known_args()
    if arguments.role:
        run_node(f"bench_{arguments.role}" if arguments.role == "cameras" else "policy_node",
                 cameras if arguments.role == "cameras" else policy)
        return 0
    try:
        result = measure(arguments.seconds)
    except HybridVLAError as error:
        print(f"bench_latency: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result, indent=1))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
