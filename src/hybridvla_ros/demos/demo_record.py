"""What the demo sees: predictions, filter ticks, and a video with the instruction and the confidence drawn into it."""
from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np
import rospy
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont
from sensor_msgs.msg import CompressedImage

from hybridvla.msg import ActionProposal, SafetyStatus
from hybridvla_core.data.lerobot.video import VideoWriter
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.safety.status import State
from hybridvla_ros.messages import conversions
from hybridvla_ros.messages.images import to_rgb

FPS, SIZE, BAR = 10, 384, 84


@dataclass
class Recorded:
    """What a demo recorded.

    Attributes:
        predictions: One row for each prediction.
        tick_ms: The filter's CPU time, ms.
        interventions: Name of each intervention -> how often it occurred.
        stills: JPEG data URIs with captions.
    """

    predictions: List[Dict[str, Any]] = field(default_factory=list)
    tick_ms: List[float] = field(default_factory=list)
    interventions: Dict[str, int] = field(default_factory=dict)
    stills: List[Dict[str, str]] = field(default_factory=list)


class DemoObserver:
    """Subscribes to images, proposals and status; writes `demo.mp4` while the demo runs.

    Attributes:
        instruction: Instruction drawn into the video; the demo sets it.
        stopped: The filter's sentence while it is STOPPED, else empty.
    """

    def __init__(self, folder: Path) -> None:
        self.instruction, self.stopped = "", ""
        self._data, self._episode, self._started = Recorded(), 0, time.monotonic()
        self._views: Dict[str, np.ndarray] = {}
        self._earlier: Dict[str, int] = {}       # interventions of filters that have ended
        self._confidence, self._fused, self._state = float("nan"), False, "INACTIVE"
        self._font = ImageFont.load_default()
        self._writer = VideoWriter(folder / "demo.mp4", SIZE + BAR, 2 * SIZE, FPS, keyframe_distance=FPS)
        self._still_due, self._closed = False, False
        for view in ("front", "wrist"):
            rospy.Subscriber(f"/camera_{view}/color/image_raw/compressed", CompressedImage, self._on_image,
                             callback_args=view, queue_size=1, buff_size=2 ** 22)
        rospy.Subscriber("/hybridvla/policy/proposal", ActionProposal, self._on_proposal, queue_size=10)
        rospy.Subscriber("/hybridvla/safety/status", SafetyStatus, self._on_status, queue_size=10)
        self._timer = rospy.Timer(rospy.Duration(1.0 / FPS), self._frame)

    def wait(self, timeout: float = 30.0) -> None:
        """Waits until both cameras have been seen."""
        deadline = time.monotonic() + timeout
        while len(self._views) < 2:
            if time.monotonic() > deadline:
                raise HybridVLAError("the rig's cameras publish nothing; see logs/launch.log beside the summary")
            time.sleep(0.1)

    def episode(self, number: int) -> None:
        self._episode, self._still_due = number, True

    def relaunched(self) -> None:
        """Prepares for another launch after one has ended: its cameras have to be seen again, and its filter counts from zero."""
        self._views = {}
        self._earlier = dict(self._data.interventions)

    def close(self) -> Recorded:
        """Ends the video, however the demo went. Returns what was recorded."""
        if not self._closed:
            self._closed = True
            self._timer.shutdown()
            time.sleep(0.3)
            self._writer.close()
        return self._data

    def _on_image(self, message: CompressedImage, view: str) -> None:
        self._views[view] = to_rgb(message, view)

    def _on_proposal(self, message: ActionProposal) -> None:
        if message.kind != ActionProposal.ACTION:
            return
        self._confidence, self._fused = message.mean_confidence, message.fused
        self._data.predictions.append({
            "t": round(time.monotonic() - self._started, 2), "episode": self._episode, "ms": float(sum(message.stage_ms)),
            "fused": bool(message.fused), "confidence": float(message.mean_confidence),
            "distance": float(message.path_distance)})
        views = self._views
        if self._still_due and len(views) == 2:
            self._still_due = False
            self._data.stills.append({"caption": f"episode {self._episode}: {self.instruction}", "image": self._uri(views)})

    def _on_status(self, message: SafetyStatus) -> None:
        status = conversions.status_contract(message)
        self._state = status.state.name
        self.stopped = status.message if status.state == State.STOPPED else ""
        self._data.tick_ms.append(status.tick_cpu_ms)
        self._data.interventions = {name: self._earlier.get(name, 0) + status.counters.get(name, 0)
                                    for name in {**self._earlier, **status.counters}}

    def _uri(self, views: Mapping[str, np.ndarray]) -> str:
        import io

        buffer = io.BytesIO()
        self._compose(views).save(buffer, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

    def _compose(self, views: Mapping[str, np.ndarray]) -> Picture.Image:
        canvas = Picture.new("RGB", (2 * SIZE, SIZE + BAR), (24, 26, 30))
        for index, view in enumerate(("front", "wrist")):
            picture = Picture.fromarray(views[view]).resize((SIZE, SIZE), Picture.Resampling.BICUBIC)
            canvas.paste(picture, (index * SIZE, BAR))
        draw = ImageDraw.Draw(canvas)
        self._text(draw, (10, 6), f"episode {self._episode}: {self.instruction}", 2)
        confidence = "confidence -" if np.isnan(self._confidence) else f"confidence {self._confidence:.2f}"
        self._text(draw, (10, 38), f"{confidence}  {'fused' if self._fused else 'diffusion'}  filter {self._state}", 2)
        if not np.isnan(self._confidence):
            draw.rectangle((10, 70, 10 + 300, 78), outline=(120, 120, 120))
            draw.rectangle((10, 70, 10 + int(300 * self._confidence), 78),
                           fill=(80, 190, 110) if self._fused else (210, 160, 60))
        return canvas

    def _text(self, draw: ImageDraw.ImageDraw, at: Tuple[int, int], text: str, scale: int) -> None:
        """Draws text in the default bitmap font, enlarged: no font file is needed."""
        box = self._font.getbbox(text)
        mask = Picture.new("L", (int(box[2]) + 2, int(box[3]) + 2))
        ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=self._font)
        mask = mask.resize((mask.width * scale, mask.height * scale))
        draw.bitmap(at, mask, fill=(235, 235, 235))

    def _frame(self, _event: rospy.timer.TimerEvent) -> None:
        views = self._views
        if len(views) == 2 and self._episode and not self._closed:
            self._writer.add(np.asarray(self._compose(views)))
