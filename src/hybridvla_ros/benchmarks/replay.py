"""How fast is replay, and how much memory does it take?

    python -m hybridvla_ros.benchmarks.replay --bag out/demo/demo.bag --minutes 3 --json out/replay_bench.json

Makes a bag of two views at 30 Hz from a recorded one of the simulated FR3, repeated until it is long enough,
replays it, and deletes it. The status is left out, so every moment is predicted from.
"""
from __future__ import annotations

import argparse
import bisect
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, Tuple

import rosbag
import rospy

from hybridvla_core.files import write_json
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.graph_names import INSTRUCTION

VIEWS = ("/camera_front/color/image_raw/compressed", "/camera_wrist/color/image_raw/compressed")
JOINTS = "/joint_states"
BEGIN, IMAGE_HZ = 1_700_000_000.0, 30.0


def make(source: Path, target: Path, seconds: float) -> None:
    """Writes the bag. Messages keep their order; their stamps continue evenly from one round of the source to the next."""
    streams: Dict[str, List[Tuple[float, object]]] = {topic: [] for topic in (*VIEWS, JOINTS, INSTRUCTION)}
    with rosbag.Bag(str(source)) as bag:
        first = bag.get_start_time()
        for topic, message, when in bag.read_messages(topics=list(streams)):
            streams[topic].append((when.to_sec() - first, message))
    length = streams[JOINTS][-1][0]
    with rosbag.Bag(str(target), "w", compression="lz4") as bag:
        step, now, joint, told = 1.0 / IMAGE_HZ, 0.0, 0, 0
        while now < seconds:
            for topic in VIEWS:
                times = [when for when, _ in streams[topic]]
                found = streams[topic][max(bisect.bisect_right(times, now % length) - 1, 0)][1]
                _write(bag, topic, found, now)
            now += step
            joint = _until(bag, JOINTS, streams[JOINTS], joint, now, length)
            told = _until(bag, INSTRUCTION, streams[INSTRUCTION], told, now, length)


def _until(bag: rosbag.Bag, topic: str, stream: List[Tuple[float, object]], index: int, end: float, length: float) -> int:
    while stream[index % len(stream)][0] + length * (index // len(stream)) < end:
        when = stream[index % len(stream)][0] + length * (index // len(stream))
        _write(bag, topic, stream[index % len(stream)][1], when)
        index += 1
    return index


def _write(bag: rosbag.Bag, topic: str, message: object, now: float) -> None:
    stamp = rospy.Time.from_sec(BEGIN + now)
    if hasattr(message, "header"):
        message.header.stamp = stamp
    bag.write(topic, message, stamp)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bag", default=str(ROOT / "out/demo/demo.bag"))
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints/tiny"))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hybridvla_bench_") as folder:
        bag, result = Path(folder) / "long.bag", Path(folder) / "result.json"
        make(Path(arguments.bag), bag, arguments.minutes * 60.0)
        subprocess.run([sys.executable, "-m", "hybridvla_cli", "replay", str(bag), "--checkpoint", arguments.checkpoint,
                        "--rate", str(arguments.rate), "--json", str(result)], check=False, stdout=subprocess.DEVNULL)
        found = json.loads(result.read_text())
        size = bag.stat().st_size
    # The largest of the processes; the filter's own is small in comparison.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024.0
    report = {"minutes": arguments.minutes, "bag_mib": round(size / 2 ** 20, 1), "predictions": found["frames"],
              "seconds": found["seconds"], "speed_over_realtime": found["speed_over_realtime"], "peak_mib": round(peak, 1)}
    print(", ".join(f"{key} {value}" for key, value in report.items()))
    write_json(arguments.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
