"""Pictures of single moments with the predicted and the recorded motion drawn in."""
from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation

from hybridvla_core.evaluation.replay.rows import Row
from hybridvla_core.evaluation.replay.track import Track

Colour = Tuple[int, int, int]
#: A line: points (3,) m in the base frame, and a colour.
Line = Tuple[List[np.ndarray], Colour]

SIZE = 224                  # px, longest side of a kept picture
QUALITY = 78
REAL, PREDICTED, BASE = (46, 190, 110), (235, 80, 60), (255, 255, 255)
COMPARED = (90, 130, 240)   # a second checkpoint's prediction
STEPS = 24                  # number of points of the recorded path
INSET, MARGIN, MIN_SPAN_M = 96, 6, 0.10


@dataclass(frozen=True)
class Projection:
    """A fixed camera, which projects points from the base frame to pixels.

    Attributes:
        position: (3,) position of the camera, m, base frame.
        quaternion: (4,) orientation of the camera, xyzw, base frame.
        intrinsics: (fx, fy, cx, cy, width) in pixels of the original image.
    """

    position: np.ndarray
    quaternion: np.ndarray
    intrinsics: Tuple[float, ...]

    def pixel(self, point: np.ndarray, width: int) -> Optional[Tuple[float, float]]:
        """Returns the pixel of a point in a picture of `width` px; None if the point is behind the camera."""
        seen = Rotation.from_quat(self.quaternion).inv().apply(np.asarray(point, dtype=float) - self.position)
        if seen[2] < 1e-3:
            return None
        fx, fy, cx, cy, full = self.intrinsics
        scale = width / full
        return scale * (fx * seen[0] / seen[2] + cx), scale * (fy * seen[1] / seen[2] + cy)


def thumbnails(images: Mapping[str, np.ndarray]) -> Dict[str, bytes]:
    """Returns JPEGs of (h, w, 3) uint8 images by view, at most SIZE px per side."""
    result = {}
    for view, image in images.items():
        picture = Image.fromarray(image)
        picture.thumbnail((SIZE, SIZE), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=QUALITY)
        result[view] = buffer.getvalue()
    return result


def draw(row: Row, view: str, tracks: Sequence[Track], projection: Optional[Projection],
         other: Optional[Row] = None) -> str:
    """Draws the row as a data URI: the recorded path green, the prediction red, another checkpoint's blue."""
    seen = Image.open(io.BytesIO(row.pictures[view])).convert("RGB")
    picture = Image.new("RGB", (max(seen.width, 2 * INSET + 3 * MARGIN), seen.height + INSET + 2 * MARGIN), (32, 34, 38))
    picture.paste(seen)
    canvas = ImageDraw.Draw(picture)
    lines = _lines(row, tracks, other)
    if projection is not None:
        for points, colour in lines:
            pixels = [projection.pixel(point, seen.width) for point in points]
            _polyline(canvas, [at if at is not None and at[1] < seen.height else None for at in pixels], colour, 2)
    _inset(canvas, picture.size, lines, (0, 1), "top", 0)
    _inset(canvas, picture.size, lines, (0, 2), "side", 1)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _lines(row: Row, tracks: Sequence[Track], other: Optional[Row]) -> List[Line]:
    """Returns the lines to draw: points in the base frame and a colour; the recorded paths first."""
    lines: List[Line] = []
    if row.truth is not None:
        begin = row.stamp_ns * 1e-9
        for track in tracks:
            poses = [track.pose(when) for when in np.linspace(begin, max(row.truth.at, begin + 1e-3), STEPS)]
            points = [pose.position for pose in poses if pose is not None]
            if points:
                lines.append((points, REAL))
    for shown, colour in ((other, COMPARED), (row, PREDICTED)):
        if shown is not None:
            lines += [([base.position, target.target.position], colour)
                      for base, target in zip(shown.bases, shown.targets)]
    return lines


def _polyline(canvas: ImageDraw.ImageDraw, pixels: Sequence[Optional[Tuple[float, float]]], colour: Colour,
              width: int) -> None:
    seen = [pixel for pixel in pixels if pixel is not None]
    if len(seen) > 1:
        canvas.line(seen, fill=colour, width=width)
    if seen:
        x, y = seen[-1]
        canvas.ellipse((x - 3, y - 3, x + 3, y + 3), outline=colour, width=2)


def _inset(canvas: ImageDraw.ImageDraw, size: Tuple[int, int], lines: Sequence[Line], axes: Tuple[int, int], title: str,
           place: int) -> None:
    """Draws a small plan of the motion into the picture's lower edge: from above (x up, y left) or the side (x right, z up)."""
    points = np.array([point for line, _ in lines for point in line])
    left = MARGIN if place == 0 else size[0] - INSET - MARGIN
    top = size[1] - INSET - MARGIN
    canvas.rectangle((left, top, left + INSET, top + INSET), fill=(20, 22, 26), outline=(120, 120, 120))
    canvas.text((left + 3, top + 1), title, fill=(200, 200, 200))
    if not len(points):
        return
    centre = (points.min(axis=0) + points.max(axis=0)) / 2.0
    span = max(float((points.max(axis=0) - points.min(axis=0)).max()), MIN_SPAN_M) * 1.25

    def at(point: np.ndarray) -> Tuple[float, float]:
        across, up = (-(point[1] - centre[1]), point[0] - centre[0]) if axes == (0, 1) else (
            point[0] - centre[0], point[2] - centre[2])
        return left + INSET / 2 + across / span * INSET, top + INSET / 2 - up / span * INSET

    for line, colour in lines:
        _polyline(canvas, [at(point) for point in line], colour, 1)
    if lines:
        x, y = at(lines[0][0][0])
        canvas.ellipse((x - 2, y - 2, x + 2, y + 2), fill=BASE)
