"""`python -m hybridvla_ros.benchmarks.images`: time to convert one view of each encoding (640x480), and to choose views."""
from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from typing import Any, Callable, Dict

import cv2
import numpy as np
import rospy
from sensor_msgs.msg import Image

from hybridvla_core.files import write_json
from hybridvla_core.report.statistics import percentiles
from hybridvla_ros.messages.images import DEEP, ENCODINGS, to_jpeg, to_rgb
from hybridvla_ros.observation.camera_sync import CameraSync

HEIGHT, WIDTH, REPEATS = 480, 640, 300


def timed(call: Callable[[], Any]) -> Dict[str, float]:
    """Returns the time of a call in ms, median and p99."""
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1e3)
    return percentiles(taken)


def run() -> Dict[str, Dict[str, float]]:
    random = np.random.default_rng(0)
    messages: Dict[str, Any] = {}
    for encoding in (*ENCODINGS, *DEEP):
        width = ENCODINGS[DEEP.get(encoding, encoding)][0] * (2 if encoding in DEEP else 1) * WIDTH
        messages[encoding] = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=width,
                                   data=random.bytes(width * HEIGHT))
    picture = cv2.GaussianBlur(random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 3)
    messages["jpeg"] = to_jpeg(picture, rospy.Time(1), "")
    figures = {name: timed(partial(to_rgb, message, name)) for name, message in messages.items()}
    sync = CameraSync(("front", "wrist", "wrist_left"), max_spread=0.04, max_age=0.25)
    for index in range(30):
        for offset, view in enumerate(sync.views):
            sync.add(view, int((100.0 + index / 30.0 + offset * 0.01) * 1e9), None, index)
    figures["choose 3 views"] = timed(lambda: sync.latest(101.0))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hybridvla_ros.benchmarks.images", description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures, ms, to this file")
    arguments = parser.parse_args()
    figures = run()
    for name, figure in figures.items():
        print(f"{name:16s} median {figure['median']:.3f} ms   p99 {figure['p99']:.3f} ms")
    write_json(arguments.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
