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

    A keyframe is where the arms come to rest or where a gripper changes; one that is near has been reached.

    Attributes:
        rest_speed_m_s: Slower is at rest, m/s.
        rest_speed_rad_s: And slower than this, rad/s.
        rest_s: For so long, s.
        near_m: Nearer is there, m.
        near_rad: And nearer than this, rad.
        gripper_change: Of the opening; more is a grasp or a release.
        horizon_s: Nothing further ahead is compared, s.
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
    """Cameras and joint states. A bound that is None is reported and not judged.

    Attributes:
        camera_min_rate_hz: Hz.
        camera_max_gap_s: Longest silence, s.
        joints_min_rate_hz: Hz.
        joints_max_gap_s: Longest silence, s.
        max_stamp_step_s: A stamp may move this much against the time of recording, s.
        max_spread_p99_s: Newest minus oldest image of an observation, s.
        max_unobserved_share: Of the predictions that were due, and of the recorded proposals, that had nothing to look at.
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
    """Predicted against recorded targets. A bound that is None is reported and not judged.

    Attributes:
        min_compared: Fewer comparable frames prove nothing.
        max_median_m: Median distance, m.
        max_p90_m: 90 % distance, m.
        max_decisions_median_m: The median where the recorded policy decided, m.
        max_median_rad: Median angle, rad.
        min_gripper_agreement: Share of frames with the gripper alike.
        min_gain: Predicted over recorded displacement along an axis, about 1.
        max_gain: The same.
        max_bias_m: Median difference along an axis, m.
        max_calibration_error: Expected, of the tokens' confidences.
        max_reproduction_m: 90 % distance to the proposals that this very checkpoint made while recording, m.
        max_state_outside_share: Recorded states outside the range of the checkpoint's statistics.
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
    """The ensemble; not judged with one path. A bound that is None is reported and not judged.

    Attributes:
        min_fused_share: Of the predictions.
        max_distance_p90_m: Between the paths, m.
        max_angle_p90_rad: The same, rad.
    """

    min_fused_share: Optional[float]
    max_distance_p90_m: Optional[float]
    max_angle_p90_rad: Optional[float]

    def __post_init__(self) -> None:
        _positive("paths", self)


@dataclass(frozen=True)
class FilterConfig:
    """Proposals through the safety filter. Shares are of the proposals checked.

    Attributes:
        run_s: How long each is executed, s; one with a new target runs to its end.
        full_every_s: At most one such in that much recorded time, s; a new instruction always does.
        new_target_m: A target that moved so far is new, m.
        new_target_rad: Or so far, rad.
        max_refused_share: Refused at once.
        max_unreached_share: Not carried out to the end.
        max_clipped_share: With a target that was cut to the workspace.
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
    """Of one prediction at a time on this machine; None unless the machine is the robot's.

    Attributes:
        max_median_ms: Median, ms.
        max_p99_ms: 99 %, ms.
    """

    max_median_ms: Optional[float]
    max_p99_ms: Optional[float]

    def __post_init__(self) -> None:
        _positive("latency", self)


@dataclass(frozen=True)
class SensitivityConfig:
    """Does it look and listen?

    How far the target moves under another instruction or without a camera, over how far it moves between noise seeds. A sense is
    used when its movement exceeds both min_ratio times that spread and min_move_m.

    Attributes:
        frames: Moments at which it is asked.
        seeds: Of the noise.
        instructions: Other ones, at most.
        radius_m: A radian counts as much as this distance, m.
        gripper_m: A changed gripper counts as much as this, m.
        min_ratio: None: reported and not judged.
        min_move_m: m.
        require_state: The robot state must be used, too.
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
        errors: Predicted against recorded targets.
        paths: The ensemble.
        filter: Proposals through the safety filter.
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
