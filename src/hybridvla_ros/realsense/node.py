"""RealSense cameras as ROS topics, named as realsense2_camera names them, without its C++ stack.

For each configured device: `/NAME/color/image_raw` (rgb8), `/NAME/color/image_raw/compressed`, `/NAME/color/camera_info`,
services `/NAME/realsense_camera/reset` and `/NAME/realsense_camera/lock_exposure`, and a diagnostics entry whose
hardware_id is the serial number.
"""
from __future__ import annotations

import sys
import threading
import time
from types import ModuleType
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence

import rospy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger, TriggerRequest, TriggerResponse

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.waiting import wait_until
from hybridvla_ros.messages.images import from_rgb, to_jpeg
from hybridvla_ros.realsense.camera import CameraState, ColourFrame, RealsenseCamera
from hybridvla_ros.realsense.config import DeviceConfig, RealsenseConfig
from hybridvla_ros.realsense.sdk import connected, load_sdk
from hybridvla_ros.runtime.node_support import package_path, publish_unless_ending, require_parameter, run_node
from hybridvla_ros.runtime.workers import FAULTS, Rate, start_worker

if TYPE_CHECKING:
    import pyrealsense2

#: Distortion models of the SDK that are OpenCV's (k1, k2, p1, p2, k3).
PLUMB_BOB = ("brown_conrady", "inverse_brown_conrady", "modified_brown_conrady", "none")
LOCK_TIMEOUT_S = 3.0
#: Time for a camera's thread to leave the driver when the node ends, s; opening a stream takes 1 to 2 s.
END_TIMEOUT_S = 3.0


class RealsenseNode:
    """One thread per camera. Raises CameraError when a camera cannot be used as configured."""

    def __init__(self, rs: ModuleType, context: pyrealsense2.context, config: RealsenseConfig) -> None:
        refuse_simulated_time()
        self._publishers: Dict[str, Dict[str, rospy.Publisher]] = {}
        self.cameras = [RealsenseCamera(rs, context, device, config, self._publish, self._clock_ns)
                        for device in config.devices]
        for device in config.devices:
            root = f"/{device.name}/color"
            self._publishers[device.name] = {
                "image": rospy.Publisher(f"{root}/image_raw", Image, queue_size=1),
                "jpeg": rospy.Publisher(f"{root}/image_raw/compressed", CompressedImage, queue_size=1),
                "info": rospy.Publisher(f"{root}/camera_info", CameraInfo, queue_size=1)}
        for camera in self.cameras:
            camera.start()
            rospy.loginfo("%s: %s", camera.config.label, camera.device.text)
        self._threads: List[threading.Thread] = []
        rospy.on_shutdown(self._close)
        for camera in self.cameras:
            root = f"/{camera.config.name}/realsense_camera"
            rospy.Service(f"{root}/reset", Trigger, self._reset(camera))
            rospy.Service(f"{root}/lock_exposure", Trigger, self._lock(camera))
            self._threads.append(start_worker(f"reading {camera.config.label}", self._run, camera))
        self._diagnostics = rospy.Publisher("/diagnostics", DiagnosticArray, queue_size=2)
        self._reports = Rate(1.0, self._report, "reporting on the cameras")

    @staticmethod
    def _clock_ns() -> int:
        return rospy.Time.now().to_nsec()

    def _run(self, camera: RealsenseCamera) -> None:
        state = camera.state
        while not (rospy.is_shutdown() or camera.ended.is_set()):
            camera.step()
            if camera.state is not state:
                state = camera.state
                (rospy.loginfo if state is CameraState.STREAMING else rospy.logerr)("%s", camera.message)

    def _publish(self, device: DeviceConfig, frame: ColourFrame) -> None:
        publishers = self._publishers[device.name]
        stamp, where = rospy.Time(nsecs=frame.stamp_ns), f"{device.name}_color_optical_frame"
        publish_unless_ending(publishers["image"], from_rgb(frame.pixels, stamp, where))
        if publishers["jpeg"].get_num_connections():
            publish_unless_ending(publishers["jpeg"], to_jpeg(frame.pixels, stamp, where, device.jpeg_quality))
        intrinsics = next(camera.intrinsics for camera in self.cameras if camera.config is device)
        publish_unless_ending(publishers["info"], camera_info(intrinsics, stamp, where))

    def _reset(self, camera: RealsenseCamera) -> Callable[[TriggerRequest], TriggerResponse]:
        def call(_request: TriggerRequest) -> TriggerResponse:
            if camera.state is not CameraState.STREAMING:
                return TriggerResponse(False, camera.message)
            camera.request("reset")
            return TriggerResponse(True, f"{camera.config.label} is being reset; it is away for some seconds")
        return call

    def _lock(self, camera: RealsenseCamera) -> Callable[[TriggerRequest], TriggerResponse]:
        def call(_request: TriggerRequest) -> TriggerResponse:
            if camera.state is not CameraState.STREAMING:
                return TriggerResponse(False, camera.message)
            before = camera.locks
            camera.request("lock")
            wait_until(lambda: camera.pending != "lock" or rospy.is_shutdown(), LOCK_TIMEOUT_S)
            camera.withdraw()
            if camera.locks == before:
                why = f"no frame for {LOCK_TIMEOUT_S:g} s" if camera.state is CameraState.STREAMING else camera.message
                return TriggerResponse(False, f"nothing of {camera.config.label} was fixed now ({why}); try again once its "
                                              "frames come")
            if not camera.locked:
                return TriggerResponse(False, f"{camera.config.label} has no exposure or white balance that can be fixed")
            values = ", ".join(f"{key}: {value:g}" for key, value in camera.locked.items())
            return TriggerResponse(True, f"fixed until the node ends; write into the configuration to keep it: {values}")
        return call

    def _report(self) -> None:
        array = DiagnosticArray()
        array.header.stamp = rospy.Time.now()
        for camera in self.cameras:
            fresh, message, values = camera.status()
            fresh, message = fresh and not FAULTS.problem, "; ".join(filter(None, (FAULTS.problem, message)))
            array.status.append(DiagnosticStatus(
                level=DiagnosticStatus.OK if fresh else DiagnosticStatus.ERROR, message=message,
                name=f"{rospy.get_name().lstrip('/')}: {camera.config.name}", hardware_id=camera.config.serial,
                values=[KeyValue(key, str(value)) for key, value in values.items()]))
        publish_unless_ending(self._diagnostics, array)

    def _close(self) -> None:
        """Called by rospy before is_shutdown() is true: a camera closed under its thread would be found and opened again."""
        self._reports.end()
        for camera in self.cameras:
            camera.ended.set()
        deadline = time.monotonic() + END_TIMEOUT_S
        for camera, thread in zip(self.cameras, self._threads):
            left = deadline - time.monotonic()
            if not wait_until(lambda thread=thread: not thread.is_alive(), left):
                # A driver call hangs; the end of the process frees the camera.
                rospy.logwarn("%s: the driver does not answer, so it is not closed", camera.config.label)
            else:
                camera.close()


def refuse_simulated_time() -> None:
    """Refuses simulated time, under which a real camera would stamp frames with a time that nobody else has."""
    if rospy.get_param("/use_sim_time", False):
        raise HybridVLAError("/use_sim_time is true, and real cameras need real time; rosparam set /use_sim_time false")


def camera_info(intrinsics: pyrealsense2.intrinsics, stamp: rospy.Time, frame: str) -> CameraInfo:
    """Returns the SDK's intrinsics as a message, with rectification and projection as for a single camera."""
    model = str(intrinsics.model).rsplit(".", 1)[-1]
    info = CameraInfo(width=intrinsics.width, height=intrinsics.height, D=[float(value) for value in intrinsics.coeffs],
                      distortion_model="plumb_bob" if model in PLUMB_BOB else "equidistant")
    fx, fy, cx, cy = (float(getattr(intrinsics, key)) for key in ("fx", "fy", "ppx", "ppy"))
    info.K = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    info.R = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.P = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.header.stamp, info.header.frame_id = stamp, frame
    return info


def list_cameras() -> int:
    """Prints the connected cameras, one per line."""
    rs = load_sdk()
    devices = connected(rs, rs.context())
    print("\n".join(device.text for device in devices) or "no RealSense camera is connected")
    return 0 if devices else 1


def serve(rs: Optional[ModuleType] = None, context: Optional[pyrealsense2.context] = None) -> None:
    """Runs the node with its parameters ~config and ~serials. rs, context: given by tests."""
    config = load_file(RealsenseConfig, package_path(require_parameter("config")))
    config = config.with_serials(str(rospy.get_param("~serials", "")))
    rs = rs or load_sdk()
    RealsenseNode(rs, context or rs.context(), config)
    rospy.spin()


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Prints the connected cameras with `--list`; otherwise runs the node."""
    words: List[str] = list(sys.argv[1:] if arguments is None else arguments)
    if "--list" in words:
        try:
            sys.exit(list_cameras())
        except HybridVLAError as error:
            sys.exit(str(error))
    run_node("realsense_camera_node", serve, stays_known=True)
