"""One RealSense camera: found by its serial number, streamed, watched, restarted, reset, and found again. No ROS.

A thread calls `step` until `ended` is set. SEARCHING: the camera is not on the bus. STREAMING: frames come. A first silence
restarts the stream, a second silence resets the camera, and a camera that left the bus is searched for until it is back.
"""
from __future__ import annotations

import enum
import threading
import time
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Callable, Dict, Optional, Tuple

import numpy as np

from hybridvla_core.waiting import Event
from hybridvla_ros.realsense import sdk
from hybridvla_ros.realsense.clock import FrameClock
from hybridvla_ros.realsense.config import DeviceConfig, RealsenseConfig

if TYPE_CHECKING:
    import pyrealsense2

#: Time between two searches of the bus, which take some 10 ms each, s.
SEARCH_PERIOD_S = 0.3
#: Number of newest frames that the SDK keeps between two reads: a late frame is better than all of them.
QUEUE = 2
POLL_MS = 100
#: A reset camera that has not left the bus after this time is used as it is, s; opened earlier, it might vanish.
LEAVE_BUS_S = 4.0


class CameraState(enum.Enum):
    SEARCHING = "searching"
    STREAMING = "streaming"
    RESETTING = "resetting"


@dataclass(frozen=True)
class ColourFrame:
    """One picture.

    Attributes:
        pixels: (h, w, 3) uint8 RGB, a copy.
        stamp_ns: Time on this computer's clock, ns.
        number: The camera's frame counter.
    """

    pixels: np.ndarray
    stamp_ns: int
    number: int


class RealsenseCamera:
    """`on_frame` is called from the thread that calls `step`.

    rs: the pyrealsense2 module; context: an rs.context(). clock_ns: this computer's clock for stamps; monotonic: clock for
    timeouts, s.
    """

    def __init__(self, rs: ModuleType, context: pyrealsense2.context, config: DeviceConfig, times: RealsenseConfig,
                 on_frame: Callable[[DeviceConfig, ColourFrame], None], clock_ns: Callable[[], int] = time.time_ns,
                 monotonic: Callable[[], float] = time.monotonic) -> None:
        self.config, self.state, self.message = config, CameraState.SEARCHING, "not looked for yet"
        self.counters: Dict[str, int] = dict.fromkeys(("frames", "dropped", "restarts", "resets", "reconnects"), 0)
        self.intrinsics: Optional[pyrealsense2.intrinsics] = None
        self.device: Optional[sdk.DeviceInfo] = None
        self.clock = FrameClock(times.max_lag_s)
        self._rs, self._context, self._times, self._on_frame = rs, context, times, on_frame
        self._clock_ns, self._monotonic = clock_ns, monotonic
        self._sensor: Optional[pyrealsense2.sensor] = None
        self._queue: Optional[pyrealsense2.frame_queue] = None
        self._last_number = 0
        self._heard = self._reset_at = -1e9
        self._silences = 0
        self._on_bus = True
        self._wanted = self._close_error = ""
        self._lock = threading.Lock()
        #: Set by whoever ends the camera: the camera is not opened again, and its thread stops waiting.
        self.ended = Event()
        #: What was locked last, and how often a request was made and carried out.
        self.locked: Dict[str, float] = {}
        self.locks = 0

    # Called from other threads ---------------------------------------------------------------------------------------

    def request(self, what: str) -> None:
        """Asks the camera's thread to `reset` the camera, or to `lock` exposure and white balance at the next frame's values."""
        with self._lock:
            self._wanted = what

    @property
    def pending(self) -> str:
        """Returns what was asked for and is not done yet; a camera that is closed forgets it."""
        return self._wanted

    def withdraw(self) -> None:
        """Withdraws what is not done yet: it no longer happens once this returns."""
        self.request("")

    # The camera's own thread -----------------------------------------------------------------------------------------

    def step(self) -> None:
        """Waits for a frame or searches for the camera, at most some 0.3 s. Never raises what a camera can cause."""
        if self.ended.is_set():
            return
        try:
            if self.state is CameraState.STREAMING:
                self._read()
            else:
                self._search()
        except sdk.CameraError as error:
            # A refusal, not a fault: it stays until somebody changes the camera.
            self.close(str(error))
            self.ended.wait(SEARCH_PERIOD_S)
        except RuntimeError as error:
            self.close(f"{self.config.label}: the driver says: {error}")
            self.ended.wait(SEARCH_PERIOD_S)

    def start(self) -> None:
        """Finds and streams the camera now. Waits at most start_timeout_s for it to appear.

        Raises:
            CameraError: The camera cannot be used; the message says why.
        """
        deadline = self._monotonic() + self._times.start_timeout_s
        while True:
            try:
                device = sdk.find(self._rs, self._context, self.config)
                if device is not None:
                    self._open(device)
                    return
            except RuntimeError as error:
                raise sdk.CameraError(f"{self.config.label} cannot be opened ({error}); is another program using it?"
                                      ) from error
            if self._monotonic() > deadline:
                raise sdk.CameraError(sdk.not_found(self._rs, self._context, self.config))
            time.sleep(SEARCH_PERIOD_S)

    def close(self, message: str = "closed") -> None:
        """Releases the camera; unless `ended`, it will be searched for again. Not while another thread is in `step`."""
        sensor, self._sensor, self._queue, self.device = self._sensor, None, None, None
        if self.state is not CameraState.RESETTING:
            self.state = CameraState.SEARCHING
        self.message = message
        self.withdraw()      # the request was about the pictures at that time
        for call in ("stop", "close"):
            try:
                if sensor is not None:
                    getattr(sensor, call)()
            except RuntimeError as error:  # it is gone, or was not started
                self._close_error = f"{call}: {error}"

    def _search(self) -> None:
        device = sdk.find(self._rs, self._context, self.config)
        since_reset = self._monotonic() - self._reset_at
        leaving = self.state is CameraState.RESETTING and self._on_bus and since_reset < LEAVE_BUS_S
        if device is not None and not leaving:
            self._open(device)
            self.counters["reconnects"] += 1
            return
        self._on_bus = device is not None
        if self.state is CameraState.RESETTING and since_reset < self._times.reset_timeout_s:
            self.message = f"{self.config.label}: waiting for it after a reset"
        else:
            self.state = CameraState.SEARCHING
            self.message = sdk.not_found(self._rs, self._context, self.config)
        self.ended.wait(SEARCH_PERIOD_S)

    def _open(self, device: sdk.DeviceInfo) -> None:
        if self.ended.is_set():
            return
        sensor, profile = sdk.colour_sensor(self._rs, device, self.config)
        sdk.configure(self._rs, device, sensor, self.config)
        if self.locked:
            sdk.restore(self._rs, sensor, self.locked)
        queue = self._rs.frame_queue(QUEUE)
        sensor.open(profile)
        self._sensor = sensor
        sensor.start(queue)
        self.device, self._queue = device, queue
        self.intrinsics = profile.get_intrinsics()
        self._heard, self._last_number = self._monotonic(), 0
        self.state, self.message = CameraState.STREAMING, "streaming"

    def _read(self) -> None:
        arrived, frame = self._queue.try_wait_for_frame(POLL_MS)
        arrival = self._clock_ns()
        if self._wanted == "reset":
            self._reset("as asked")
            return
        if not arrived or not frame:
            if self._monotonic() - self._heard > self._times.frame_timeout_s:
                self._silence()
            return
        self._heard, self._silences, self.message = self._monotonic(), 0, "streaming"
        number = int(frame.get_frame_number())
        if 0 < self._last_number < number:
            self.counters["dropped"] += number - self._last_number - 1
        self.counters["frames"] += 1
        self._last_number = number
        with self._lock:
            if self._wanted == "lock":
                self.locked = sdk.lock(self._rs, self._sensor, frame)
                self.locks, self._wanted = self.locks + 1, ""
        domain = str(frame.get_frame_timestamp_domain()).rsplit(".", 1)[-1]
        stamp = self.clock.stamp_ns(float(frame.get_timestamp()), domain, arrival)
        pixels = np.array(np.asanyarray(frame.as_video_frame().get_data()), copy=True)
        self._on_frame(self.config, ColourFrame(pixels, stamp, number))

    def _silence(self) -> None:
        """Handles a silence of frame_timeout_s: restarts the stream, and resets the camera if that did not help."""
        self._silences += 1
        silence = f"{self.config.label}: no frame for {self._monotonic() - self._heard:.1f} s"
        device = sdk.find(self._rs, self._context, self.config)
        if device is None:
            self.close(sdk.not_found(self._rs, self._context, self.config))
        elif self._silences > 1 and self._monotonic() - self._reset_at > self._times.reset_interval_s:
            self._reset(silence)
        else:
            self.close(silence)
            self._open(device)
            self.message = f"{silence}; stream restarted"
            self.counters["restarts"] += 1

    def _reset(self, why: str) -> None:
        """Makes the camera restart itself; it leaves the bus for some seconds, and every handle becomes invalid."""
        device = self.device
        self.close(f"{self.config.label}: reset ({why})")
        self._reset_at, self.counters["resets"] = self._monotonic(), self.counters["resets"] + 1
        self.state, self._on_bus = CameraState.RESETTING, True
        try:
            if device is not None:
                device.handle.hardware_reset()
        except RuntimeError as error:
            self.message = f"{self.config.label}: cannot be reset ({error}); unplug it and plug it in again"
        self.ended.wait(SEARCH_PERIOD_S)

    def status(self) -> Tuple[bool, str, Dict[str, object]]:
        """Returns (whether frames come, a sentence, values) for diagnostics."""
        fresh = self.state is CameraState.STREAMING and self._monotonic() - self._heard <= self._times.frame_timeout_s
        values: Dict[str, object] = {"state": self.state.value, **self.counters, "stamps_corrected": self.clock.corrected,
                                     **{f"locked {key}": value for key, value in self.locked.items()}}
        if self._close_error:
            values["last error on closing"] = self._close_error
        if self.device is not None:
            values.update({"model": self.device.name, "usb": self.device.usb, "firmware": self.device.firmware})
        return fresh, self.message, values
