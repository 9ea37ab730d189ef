"""Configuration of the policy node: which checkpoint, which cameras, which convention, which times.

The action convention is written out here and in the checkpoint; `check_fit` (policy/fit.py) refuses a
difference, so that neither side can silently reinterpret the other (design 5).
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from hybridvla_core.contracts import Mode
from hybridvla_core.conventions import ActionConvention
from hybridvla_core.errors import ConfigurationError, ObservationError

MODES = tuple(mode.name.lower() for mode in Mode)
MAX_CAMERAS = 3


@dataclass(frozen=True)
class CameraSource:
    """One view of the model. `view`: its name in the checkpoint; `camera_info_topic` may be left out.

    width_px, height_px: the size its images must have, so that another stream of the camera is not taken for the one
    of the training data; None accepts any.
    """

    view: str
    image_topic: str
    camera_info_topic: Optional[str] = None
    width_px: Optional[int] = None
    height_px: Optional[int] = None

    def __post_init__(self) -> None:
        if not self.view:
            raise ConfigurationError("a camera has an empty view name; use the name the checkpoint gives it")
        if not self.image_topic:
            raise ConfigurationError(f"camera {self.view}: image_topic is empty; name the topic of its images")

    def check_size(self, height: int, width: int) -> None:
        """Raises ObservationError for an image that is not of the configured size."""
        if (self.width_px or width, self.height_px or height) != (width, height):
            raise ObservationError(f"camera {self.view} sends images of {width}x{height} pixels, configured are "
                                   f"{self.width_px}x{self.height_px}; choose the stream of the training data")


@dataclass(frozen=True)
class PolicyConfig:
    """What `policy_node` and `hybridvla evaluate` need to know beside the checkpoint.

    checkpoint: folder, relative to the package's root or absolute. device, dtype: torch names (`cpu`, `cuda`;
    `float32`, `bfloat16`). cameras: in the checkpoint's order. mode: `ensemble`, `diffusion` or `autoregressive`.
    seed: of the model's noise (with the observation's stamp). frames: base frame of each arm, in
    `convention.arms` order. prediction_rate_hz: upper bound. max_observation_age_s: age of the oldest image above
    which nothing is predicted. max_camera_spread_s: newest minus oldest image of one observation.
    max_state_gap_s: largest distance in time between the images and the nearest arm state.
    keyframe_timeout_s: how long a keyframe may take; acceptance_timeout_s: how long the filter may take to report
    that it executes a proposal, before the policy predicts anew. valid_for_margin_s: added to the action period of
    dense actions. inference_timeout_s: an inference loop without progress for longer is reported as FAULT.
    """

    checkpoint: str
    device: str
    dtype: str
    mode: str
    seed: int
    cameras: Tuple[CameraSource, ...]
    convention: ActionConvention
    frames: Tuple[str, ...]
    prediction_rate_hz: float = 10.0
    max_observation_age_s: float = 0.5
    max_camera_spread_s: float = 0.05
    max_state_gap_s: float = 0.1
    keyframe_timeout_s: float = 10.0
    acceptance_timeout_s: float = 0.5
    valid_for_margin_s: float = 0.1
    inference_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise ConfigurationError("checkpoint is empty; name the checkpoint's folder")
        if self.mode not in MODES:
            raise ConfigurationError(f"mode is {self.mode!r}; use one of {', '.join(MODES)}")
        if not 0 <= self.seed < 2 ** 63:
            raise ConfigurationError(f"seed is {self.seed}; use a whole number from 0 below 2^63")
        views = [camera.view for camera in self.cameras]
        if not 1 <= len(views) <= MAX_CAMERAS or len(set(views)) != len(views):
            raise ConfigurationError(f"cameras must be 1 to {MAX_CAMERAS} different views, found {views}")
        if len(self.frames) != len(self.convention.arms) or not all(self.frames):
            raise ConfigurationError(f"frames must name one base frame for each of the arms "
                                     f"{list(self.convention.arms)}, found {list(self.frames)}")
        _check_range("prediction_rate_hz", self.prediction_rate_hz, 0.1, 100.0)
        for key, high in (("max_observation_age_s", 10.0), ("max_camera_spread_s", 1.0), ("max_state_gap_s", 1.0),
                          ("keyframe_timeout_s", 60.0), ("acceptance_timeout_s", 60.0), ("valid_for_margin_s", 1.0),
                          ("inference_timeout_s", 600.0)):
            _check_range(key, getattr(self, key), 1e-3, high)

    @property
    def inference_mode(self) -> Mode:
        return Mode[self.mode.upper()]

    @property
    def is_keyframe(self) -> bool:
        return self.convention.action_period_s == 0.0

    def valid_for(self, chunk: int) -> float:
        """Seconds a proposal of `chunk` steps stays valid from receipt (design 5)."""
        if self.is_keyframe:
            return self.keyframe_timeout_s
        return chunk * self.convention.action_period_s + self.valid_for_margin_s


def _check_range(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigurationError(f"{key} is {value}; use a value from {low:g} to {high:g}")
