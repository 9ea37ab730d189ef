"""The real realsense_camera_node on software devices. The test's own services stand in for the hand at the cable."""
from __future__ import annotations

import gc
import threading
import time

import pyrealsense2 as rs
import rospy
from realsense_bench import SoftCamera
from std_srvs.srv import SetBool, SetBoolResponse

from hybridvla_ros.realsense.node import serve
from hybridvla_ros.runtime.node_support import run_node


class Bus:
    """Cameras 111 and 222 sending at 30 Hz; `/cable` unplugs (false) or plugs in (true) 111, `/stall` stops its frames."""

    def __init__(self):
        self.context, self.lock, self.stalled = rs.context(), threading.Lock(), False
        self.cameras = {serial: SoftCamera(serial).plug(self.context) for serial in ("111", "222")}
        rospy.Service("/cable", SetBool, self.cable)
        rospy.Service("/stall", SetBool, self.stall)
        threading.Thread(target=self.run, daemon=True).start()

    def cable(self, request):
        with self.lock:
            if request.data:
                self.cameras["111"] = SoftCamera("111").plug(self.context)
            else:
                self.cameras.pop("111").unplug()
                gc.collect()
        return SetBoolResponse(True, "")

    def stall(self, request):
        self.stalled = request.data
        return SetBoolResponse(True, "")

    def run(self):
        while not rospy.is_shutdown():
            with self.lock:
                for serial, camera in self.cameras.items():
                    if not (self.stalled and serial == "111"):
                        camera.send(int(serial) % 256)
            time.sleep(0.033)


if __name__ == "__main__":
    run_node("realsense_camera_node", lambda: serve(rs, Bus().context))
