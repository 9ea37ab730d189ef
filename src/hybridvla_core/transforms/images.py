"""Conversion of camera images to pixels, exactly as in training: PIL bicubic on uint8 (docs/fidelity.md)."""
from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from PIL import Image

from hybridvla_core.errors import ConfigurationError, ObservationError
from hybridvla_core.model.config import TowerConfig
from hybridvla_core.model.layers import constant

#: What distinguishes the pictures of one image: the size, and with letterbox the mean.
Key = Tuple[int, Optional[Tuple[float, ...]]]
STRATEGIES = ("resize-naive", "letterbox", "resize-crop")


def check_image(image: np.ndarray, name: str) -> np.ndarray:
    """Returns an (H, W, 3) uint8 RGB array, or raises ObservationError naming the view."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ObservationError(f"view {name}: expected an RGB image of shape (height, width, 3) in uint8, found "
                               f"{image.shape} in {image.dtype}; convert it first")
    if min(image.shape[:2]) < 8:
        raise ObservationError(f"view {name}: image is only {image.shape[1]}x{image.shape[0]} pixels")
    return image


def fit(image: np.ndarray, size: int, strategy: str, fill: Sequence[float]) -> np.ndarray:
    """Returns the image as (size, size, 3) uint8. `fill`: channel means in [0, 1], the border of `letterbox`."""
    picture = Image.fromarray(image)
    if strategy == "resize-naive":
        picture = _resize(picture, size, size)
    elif strategy in ("letterbox", "resize-crop"):
        if strategy == "letterbox":
            picture = _pad_to_square(picture, tuple(int(value * 255) for value in fill))
        picture = _crop(_resize_shorter(picture, size), size)
    else:
        raise ConfigurationError(f"image strategy {strategy!r}; use one of {', '.join(STRATEGIES)}")
    return np.asarray(picture)


def _resize(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Resizes bicubically, one axis at a time: horizontally first unless that would enlarge before the other axis shrinks.

    Pillow rounds to bytes between the passes, so their order matters. This is the recorded order; Pillow 10 and older always
    run the horizontal pass first. Fixing the order here gives the same bytes with all versions.

    Returns:
        The picture of that size.
    """
    before_width, before_height = picture.size
    shrink_first = width > before_width and height < before_height
    between = (before_width, height) if shrink_first else (width, before_height)
    return picture.resize(between, Image.Resampling.BICUBIC).resize((width, height), Image.Resampling.BICUBIC)


def _pad_to_square(picture: Image.Image, colour: Tuple[int, ...]) -> Image.Image:
    width, height = picture.size
    side = max(width, height)
    canvas = Image.new("RGB", (side + (side - width) % 2, side + (side - height) % 2), colour)
    # torchvision pads both borders with half the difference, rounded down
    left, top = (side - width) // 2, (side - height) // 2
    canvas = canvas.crop((0, 0, width + 2 * left, height + 2 * top))
    canvas.paste(picture, (left, top))
    return canvas


def _resize_shorter(picture: Image.Image, size: int) -> Image.Image:
    width, height = picture.size
    if width <= height:
        return _resize(picture, size, int(size * height / width))
    return _resize(picture, int(size * width / height), size)


def _crop(picture: Image.Image, size: int) -> Image.Image:
    width, height = picture.size
    left, top = int(round((width - size) / 2.0)), int(round((height - size) / 2.0))
    return picture.crop((left, top, left + size, top + size))


class PreparedImage:
    """A view that was resized for every tower as soon as it arrived; replaces the image in an `Observation`."""

    def __init__(self, image: np.ndarray, name: str, towers: Sequence[TowerConfig], strategy: str) -> None:
        image = check_image(image, name)
        self.shape = image.shape
        self.fitted = {key: fit(image, size, strategy, mean) for key, size, mean in _sizes(towers, strategy)}


def _sizes(towers: Sequence[TowerConfig], strategy: str) -> List[Tuple[Key, int, Tuple[float, ...]]]:
    """Lists the distinct pictures that the towers need.

    Towers that resize alike share a picture, as only letterbox depends on the tower's mean.

    Returns:
        (key, size in pixels, mean) of each.
    """
    found: Dict[Key, Tuple[Key, int, Tuple[float, ...]]] = {}
    for tower in towers:
        key = picture_key(tower, strategy)
        found.setdefault(key, (key, tower.image_size, tower.mean))
    return list(found.values())


def picture_key(tower: TowerConfig, strategy: str) -> Key:
    """Returns a tower's key; towers with the same key see the same fitted picture."""
    return (tower.image_size, tower.mean if strategy == "letterbox" else None)


def normalise_pixels(pixels: torch.Tensor, tower: TowerConfig) -> torch.Tensor:
    """Converts pixels (..., 3, S, S) in [0, 1] to the tower's units, (p - mean) / std."""
    mean, std = (constant(tuple(values), pixels.dtype, pixels.device).view(3, 1, 1) for values in (tower.mean, tower.std))
    return (pixels - mean) / std


def to_pixels(images: Sequence[Union[np.ndarray, PreparedImage]], names: Sequence[str], towers: Sequence[TowerConfig],
              strategy: str) -> Dict[str, torch.Tensor]:
    """Returns one observation's views, in order, as pixels: tower kind -> (V, 3, S, S) float32 normalised."""
    views = [image if isinstance(image, PreparedImage) else PreparedImage(image, name, towers, strategy)
             for image, name in zip(images, names)]
    pixels, scaled = {}, {}
    for tower in towers:
        key = picture_key(tower, strategy)
        if key not in scaled:
            stacked = np.stack([view.fitted[key] for view in views])
            scaled[key] = torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255.0
        pixels[tower.kind] = normalise_pixels(scaled[key], tower)
    return pixels
