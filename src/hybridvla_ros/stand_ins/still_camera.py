"""`python -m hybridvla_ros.stand_ins.still_camera TOPIC`: a camera driver in a process of its own that sends one picture
again and again, for measuring what comes after it.

A frame is built once and only its stamp changes: a driver in C++ needs little time for a frame, one in Python needs a lot.
"""
from __future__ import annotations

import argparse
import io
import struct
import sys
import time
from typing import IO, List

import numpy as np
import rospy
from sensor_msgs.msg import Image

from hybridvla_ros.messages.images import from_rgb
from hybridvla_ros.runtime.node_support import run_node
from hybridvla_ros.runtime.private_graph import Graph


class Still(Image):
    """Bytes ready to be sent, except sequence and stamp: the three numbers at their beginning."""

    __slots__ = ["ready"]

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        whole = io.BytesIO()
        from_rgb(np.zeros((height, width, 3), np.uint8), rospy.Time(1), "still").serialize(whole)
        self.ready = whole.getvalue()[struct.calcsize("<III"):]

    def serialize(self, buff: IO[bytes]) -> None:
        buff.write(struct.pack("<III", self.header.seq, self.header.stamp.secs, self.header.stamp.nsecs))
        buff.write(self.ready)


def send(topic: str, width: int, height: int, fps: float) -> None:
    """Sends frames at the multiples of 1 / fps s, so that several of these cameras expose together, as with a sync cable."""
    frame = Still(width, height)
    publisher = rospy.Publisher(topic, Image, queue_size=1, tcp_nodelay=True)
    while not rospy.is_shutdown():
        now = time.time()
        time.sleep((int(now * fps) + 1) / fps - now)
        frame.header.stamp = rospy.Time.now()
        publisher.publish(frame)


def start_still_cameras(graph: Graph, topics: List[str], width: int = 640, height: int = 480, fps: float = 30.0) -> None:
    """Starts one process per topic; they end with the graph."""
    for number, topic in enumerate(topics):
        graph.start([sys.executable, "-m", __name__, topic, "--width", str(width), "--height", str(height),
                     "--fps", str(fps)], f"still_camera_{number}.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topic")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--fps", type=float, default=30.0)
    arguments = parser.parse_args()
    run_node("still_camera" + arguments.topic.replace("/", "_"),
             lambda: send(arguments.topic, arguments.width, arguments.height, arguments.fps))


if __name__ == "__main__":
    main()
