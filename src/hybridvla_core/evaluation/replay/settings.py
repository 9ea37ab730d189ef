"""What a recording and a checkpoint must reach, read from `config/replay/thresholds.yaml`. Units are in the keys."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.moved import old_names


def _positive(section: str, config: object) -> None:
    for name, value in vars(config).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not value >= 0.0:
            raise ConfigurationError(f"{section}: {name} is {value}; use 0 or more, or null to leave it out")


@dataclass(frozen=True)
class MotionConfig:
    """How the recorded motion is read.

    A keyframe is where the arms come to rest (slower than rest_* for rest_s) or where a gripper changes by more than
    gripper_change of its opening; one nearer than near_* has been reached. Nothing is compared that lies more than
    horizon_s ahead.
    """

    rest_speed_m_s: float
    rest_speed_rad_s: float
    rest_s: float
    near_m: float
    near_rad: float
    gripper_change: float
    horizon_s: float

    def __post_init__(self) -> None:
        _positive("motion", self)
        if not (self.rest_s > 0.0 and self.horizon_s > 0.0 and 0.0 < self.gripper_change < 1.0):
            raise ConfigurationError("motion: rest_s and horizon_s must be positive, gripper_change between 0 and 1")


@dataclass(frozen=True)
class StreamConfig:
    """Cameras and joint states. max_stamp_step_s: a stamp may move this much against the time of recording."""

    camera_min_rate_hz: Optional[float]
    camera_max_gap_s: Optional[float]
    joints_min_rate_hz: Optional[float]
    joints_max_gap_s: Optional[float]
    max_stamp_step_s: Optional[float]
    max_spread_p99_s: Optional[float]
    max_unobserved_share: Optional[float]

    def __post_init__(self) -> None:
        _positive("streams", self)


@dataclass(frozen=True)
class ErrorConfig:
    """Predicted against recorded targets. gain: predicted over recorded displacement along an axis, about 1."""

    min_compared: int
    max_median_m: Optional[float]
    max_p90_m: Optional[float]
    max_decisions_median_m: Optional[float]
    max_median_rad: Optional[float]
    min_gripper_agreement: Optional[float]
    min_gain: Optional[float]
    max_gain: Optional[float]
    max_bias_m: Optional[float]
    max_calibration_error: Optional[float]
    max_reproduction_m: Optional[float]
    max_state_outside_share: Optional[float]

    def __post_init__(self) -> None:
        _positive("errors", self)


@dataclass(frozen=True)
class PathConfig:
    """The ensemble: how much of it is fused and how far its paths lie apart. Not judged with one path."""

    min_fused_share: Optional[float]
    max_distance_p90_m: Optional[float]
    max_angle_p90_rad: Optional[float]

    def __post_init__(self) -> None:
        _positive("paths", self)


@dataclass(frozen=True)
class FilterConfig:
    """run_s: how long each proposal is executed by the filter; one whose target moved by new_target_* runs to its end,
    at most one in full_every_s of recorded time (a new instruction always does).

    Shares are of the proposals checked: refused at once; not carried out to the end; target cut to the workspace.
    """

    run_s: float
    full_every_s: float
    new_target_m: float
    new_target_rad: float
    max_refused_share: Optional[float]
    max_unreached_share: Optional[float]
    max_clipped_share: Optional[float]

    def __post_init__(self) -> None:
        _positive("filter", self)


@dataclass(frozen=True)
class LatencyConfig:
    """Of one prediction at a time on this machine, ms; null unless the machine is the robot's."""

    max_median_ms: Optional[float]
    max_p99_ms: Optional[float]

    def __post_init__(self) -> None:
        _positive("latency", self)


@dataclass(frozen=True)
class SensitivityConfig:
    """Does it look and listen? On `frames` moments: how far the target moves under another instruction or without a
    camera, over how far it moves between `seeds` noise seeds. Rotations count radius_m per radian, a changed gripper
    gripper_m. A sense is used when its movement exceeds both min_ratio times the spread and min_move_m."""

    frames: int
    seeds: int
    instructions: int
    radius_m: float
    gripper_m: float
    min_ratio: Optional[float]
    min_move_m: float
    require_state: bool

    def __post_init__(self) -> None:
        _positive("senses", self)
        if self.seeds < 2 or self.instructions < 1:
            raise ConfigurationError("senses: at least 2 seeds and 1 instruction are needed for a comparison")


@dataclass(frozen=True)
class ReplayConfig:
    """The whole file; a null threshold is reported and not judged."""

    motion: MotionConfig
    streams: StreamConfig
    errors: ErrorConfig
    paths: PathConfig
    filter: FilterConfig
    latency: LatencyConfig
    senses: SensitivityConfig


__getattr__ = old_names(__name__)
