"""Thresholds for a recording and a checkpoint, read from `config/replay/thresholds.yaml`. Units are in the keys."""
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

    A keyframe is where the arms come to rest or where a gripper changes; a keyframe that is near has been reached.

    Attributes:
        rest_speed_m_s: An arm at rest is slower than this, m/s.
        rest_speed_rad_s: An arm at rest also turns slower than this, rad/s.
        rest_s: Time for which it must be that slow, s.
        near_m: An arm has arrived within this distance, m.
        near_rad: An arm has arrived if it is also within this angle, rad.
        gripper_change: Change of the opening above which it is a grasp or a release.
        horizon_s: Targets further ahead than this are not compared, s.
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
    """Bounds on cameras and joint states. A bound that is None is reported and not judged.

    Attributes:
        camera_min_rate_hz: Lowest rate of a camera, Hz.
        camera_max_gap_s: Longest gap of a camera, s.
        joints_min_rate_hz: Lowest rate of joint states, Hz.
        joints_max_gap_s: Longest gap of joint states, s.
        max_stamp_step_s: Largest step of a stamp relative to the time of recording, s.
        max_spread_p99_s: Largest 99 % value of newest minus oldest image of an observation, s.
        max_unobserved_share: Largest share of due predictions, and of recorded proposals, that had no observation.
    """

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
    """Bounds on predicted against recorded targets. A bound that is None is reported and not judged.

    Attributes:
        min_compared: Fewest comparable frames; fewer prove nothing.
        max_median_m: Largest median distance, m.
        max_p90_m: Largest 90 % distance, m.
        max_decisions_median_m: Largest median distance where the recorded policy decided, m.
        max_median_rad: Largest median angle, rad.
        min_gripper_agreement: Lowest share of frames in which the gripper agrees.
        min_gain: Lowest ratio of predicted to recorded displacement along an axis, about 1.
        max_gain: Highest such ratio.
        max_bias_m: Largest median difference along an axis, m.
        max_calibration_error: Largest expected calibration error of the tokens' confidences.
        max_reproduction_m: Largest 90 % distance to the proposals that this very checkpoint made while recording, m.
        max_state_outside_share: Largest share of recorded states outside the range of the checkpoint's statistics.
    """

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
    """Bounds on the ensemble; not judged with one path. A bound that is None is reported and not judged.

    Attributes:
        min_fused_share: Lowest share of the predictions whose paths were averaged.
        max_distance_p90_m: Largest 90 % distance between the paths, m.
        max_angle_p90_rad: Largest 90 % angle between the paths, rad.
    """

    min_fused_share: Optional[float]
    max_distance_p90_m: Optional[float]
    max_angle_p90_rad: Optional[float]

    def __post_init__(self) -> None:
        _positive("paths", self)


@dataclass(frozen=True)
class FilterConfig:
    """Runs of proposals through the safety filter. Shares are of the proposals checked.

    Attributes:
        run_s: How long each proposal is executed, s; one with a new target runs to its end.
        full_every_s: At most one such full run in this much recorded time, s; a new instruction always gets one.
        new_target_m: A target is new if it moved by this distance, m.
        new_target_rad: A target is also new if it turned by this angle, rad.
        max_refused_share: Largest share refused at once.
        max_unreached_share: Largest share not carried out to the end.
        max_clipped_share: Largest share with a target that was clipped to the workspace.
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
    """Bounds on the time of single predictions on this machine; None unless the machine is the robot's.

    Attributes:
        max_median_ms: Largest median, ms.
        max_p99_ms: Largest 99 % value, ms.
    """

    max_median_ms: Optional[float]
    max_p99_ms: Optional[float]

    def __post_init__(self) -> None:
        _positive("latency", self)


@dataclass(frozen=True)
class SensitivityConfig:
    """Does the policy look and listen?

    Compares how far the target moves under another instruction or without a camera with how far it moves between noise seeds. A
    sense is used when its movement exceeds both min_ratio times that spread and min_move_m.

    Attributes:
        frames: Number of moments tested.
        seeds: Number of noise seeds.
        instructions: Largest number of other instructions.
        radius_m: A radian counts as much as this distance, m.
        gripper_m: A changed gripper counts as much as this, m.
        min_ratio: Lowest ratio of movement to spread; None: reported and not judged.
        min_move_m: Smallest movement, m.
        require_state: Whether the robot state must be used, too.
    """

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
    """The whole file; a bound that is null is reported and not judged.

    Attributes:
        motion: How the recorded motion is read.
        streams: Cameras and joint states.
        errors: Bounds on predicted against recorded targets.
        paths: Bounds on the ensemble.
        filter: Runs of proposals through the safety filter.
        latency: Times of predictions.
        senses: Whether the policy looks and listens.
    """

    motion: MotionConfig
    streams: StreamConfig
    errors: ErrorConfig
    paths: PathConfig
    filter: FilterConfig
    latency: LatencyConfig
    senses: SensitivityConfig


__getattr__ = old_names(__name__)
