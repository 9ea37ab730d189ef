"""A robot as the filter sees it: frames, kinematics, limits, rates, topics. Read from `config/robots/*.yaml`.

Limits come only from this file; those of a URDF or MJCF are never read. Units are in the names of the keys.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple, Union

from hybridvla_core.configuration import in_range, load_file, one_of, positive, require
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.robots.agilex import AgilexConfig
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.franka import FrankaConfig
from hybridvla_core.robots.topics import check_topics

DOORS = ("cartesian", "joint")
DRIVER_DOORS = {"agilex_joint": "joint", "agilex_pos_cmd": "cartesian"}
ON_LIMIT = ("scale", "slide")
#: Smallest `speed_scale`, in a file, at launch and while the filter runs.
LEAST_SCALE = 0.01
#: Largest value of each tolerance of `at_target`, by its unit: with more, everything counts as reached.
FARTHEST = {"m": 0.05, "rad": 0.5, "s": 5.0}


@dataclass(frozen=True)
class Watchdogs:
    """Longest silences before motion ends, monotonic s.

    Attributes:
        heartbeat_s: Silence of the policy, s.
        joint_state_s: Silence of an arm's driver, s.
        deadman_s: Silence of the dead-man switch, s.
        clock_gap_s: Time between two ticks of the filter, s.
    """

    heartbeat_s: float
    joint_state_s: float
    deadman_s: float
    clock_gap_s: float

    def __post_init__(self) -> None:
        for key in ("heartbeat_s", "joint_state_s", "deadman_s", "clock_gap_s"):
            in_range(f"watchdogs: {key}", getattr(self, key), 0.0, 2.0, above=True)


@dataclass(frozen=True)
class ProposalBounds:
    """What a proposal may claim.

    Attributes:
        max_observation_age_s: Largest age of its observation, s.
        max_valid_for_s: Longest time for which it may be executed, s.
        max_chunk: Largest number of steps.
    """

    max_observation_age_s: float
    max_valid_for_s: float
    max_chunk: int

    def __post_init__(self) -> None:
        in_range("proposals: max_observation_age_s", self.max_observation_age_s, 0.0, 10.0, above=True)
        in_range("proposals: max_valid_for_s", self.max_valid_for_s, 0.0, 600.0, above=True)
        positive("proposals: max_chunk", self.max_chunk)


@dataclass(frozen=True)
class AtTarget:
    """When a keyframe counts as reached: the commanded pose is near, and the measured pose is near or `settle_s` have passed.

    Attributes:
        position_m: Tolerance of the commanded position, m.
        rotation_rad: Tolerance of the commanded rotation, rad.
        measured_position_m: Tolerance of the measured position, m.
        measured_rotation_rad: Tolerance of the measured rotation, rad.
        settle_s: Time after which the measured pose does not matter, s.
    """

    position_m: float
    rotation_rad: float
    measured_position_m: float
    measured_rotation_rad: float
    settle_s: float

    def __post_init__(self) -> None:
        for key in ("position_m", "rotation_rad", "measured_position_m", "measured_rotation_rad", "settle_s"):
            in_range(f"at_target: {key}", getattr(self, key), 0.0, FARTHEST[key.rpartition("_")[2]], above=True)


@dataclass(frozen=True)
class CautionConfig:
    """Optional slowing if the two paths disagree or the mean confidence is low; off by default.

    Attributes:
        enabled: Whether slowing is on.
        distance_m: Disagreement in position above which the filter slows, m.
        angle_rad: Disagreement in rotation above which the filter slows, rad.
        confidence: Mean confidence below which the filter slows.
        scale: Share of the speed while slowed, in (0, 1].
    """

    enabled: bool
    distance_m: float
    angle_rad: float
    confidence: float
    scale: float

    def __post_init__(self) -> None:
        positive("caution: distance_m", self.distance_m)
        positive("caution: angle_rad", self.angle_rad)
        in_range("caution: confidence", self.confidence, 0.0, 1.0)
        in_range("caution: scale", self.scale, 0.0, 1.0, above=True)


@dataclass(frozen=True)
class RobotConfig:
    """Everything the filter knows about a robot.

    Attributes:
        name: Name of the robot.
        driver: Name of the ROS adapter.
        door: `cartesian` (poses to an impedance controller) or `joint` (joint targets).
        arms: One or more arms.
        coupled: Whether all arms keep one time scale.
        inter_arm_margin_m: Distance kept between capsules of two arms, m.
        tick_hz: Rate of the filter, Hz.
        status_hz: Rate of the status while nothing changes, Hz.
        speed_scale: Scale of all speeds, from LEAST_SCALE to 1.
        on_limit: How a target outside the workspace is handled: `scale` keeps the line to it, `slide` follows the wall.
        reenter_scale: Scale of the speeds on the way back inside the limits.
        ramp_s: Time in which speeds rise after activation, s.
        deadman_required: Whether motion needs a held dead-man switch.
        tcp_tolerance_m: Allowed distance between the driver's tool pose and our own, m.
        tcp_tolerance_rad: Allowed angle between the driver's tool pose and our own, rad.
        watchdogs: Silences that end motion.
        proposals: What a proposal may claim.
        at_target: When a keyframe counts as reached.
        caution: Optional slowing.
        topics: ROS names shared by all arms, by role.
        agilex: Settings of an AgileX driver; other drivers have none.
        franka: Settings of a Franka driver; other drivers have none.
        source: Where the numbers come from, in words.
    """

    name: str
    driver: str
    door: str
    arms: Tuple[ArmConfig, ...]
    coupled: bool
    inter_arm_margin_m: float
    tick_hz: float
    status_hz: float
    speed_scale: float
    on_limit: str
    reenter_scale: float
    ramp_s: float
    deadman_required: bool
    tcp_tolerance_m: float
    tcp_tolerance_rad: float
    watchdogs: Watchdogs
    proposals: ProposalBounds
    at_target: AtTarget
    caution: CautionConfig
    topics: Dict[str, str]
    agilex: Optional[AgilexConfig] = None
    franka: Optional[FrankaConfig] = None
    source: Optional[str] = None

    def __post_init__(self) -> None:
        one_of("door", self.door, DOORS)
        one_of("on_limit", self.on_limit, ON_LIMIT)
        names = [arm.name for arm in self.arms]
        require(bool(names) and len(set(names)) == len(names), f"arms must be named once each, found {names}")
        check_topics(self.topics, self.arms)
        in_range("tick_hz", self.tick_hz, 20.0, 1000.0)
        in_range("status_hz, which is at most tick_hz,", self.status_hz, 0.0, self.tick_hz, above=True)
        in_range("speed_scale", self.speed_scale, LEAST_SCALE, 1.0)
        in_range("reenter_scale", self.reenter_scale, 0.0, 0.5, above=True)
        in_range("ramp_s", self.ramp_s, 0.0, 10.0)
        require(self.inter_arm_margin_m >= 0.0, f"inter_arm_margin_m must not be negative, and is {self.inter_arm_margin_m:g}")
        in_range("tcp_tolerance_m", self.tcp_tolerance_m, 0.0, 0.05, above=True)
        in_range("tcp_tolerance_rad", self.tcp_tolerance_rad, 0.0, 0.1, above=True)
        require(self.agilex is not None or not self.driver.startswith("agilex"),
                f"driver {self.driver} needs a section agilex")
        require((self.franka is not None) == (self.driver == "franka_ros"),
                "driver franka_ros, and no other, needs a section franka")
        joints = {arm.name: arm.dof for arm in self.arms}
        counts = ", ".join(f"{name} {dof}" for name, dof in joints.items())
        require(len(set(joints.values())) == 1, f"arms must have the same number of joints, and have {counts}; the filter cannot "
                "drive them together, so make a file for each")
        for arm in self.arms:
            require(bool(arm.collision.capsules), f"arm {arm.name}: collision: capsules is empty; links, table and other arms "
                    "are kept apart by them, so describe the arm's links")
        if self.franka is not None:
            require(len(self.arms) == 1, f"driver franka_ros drives one arm, and there are {', '.join(names)}; make a file for "
                    "each, or use driver franka_cartesian")
            self.franka.check_arm(self.arms[0])
        require(self.door == DRIVER_DOORS.get(self.driver, self.door),
                f"driver {self.driver} is commanded through door {DRIVER_DOORS.get(self.driver)}")
        require(self.watchdogs.clock_gap_s > 2.0 / self.tick_hz,
                f"watchdogs: clock_gap_s must exceed two ticks ({2.0 / self.tick_hz:g} s), and is {self.watchdogs.clock_gap_s:g}")

    @property
    def dt(self) -> float:
        """Duration of a tick, s."""
        return 1.0 / self.tick_hz

    def arm(self, name: str) -> ArmConfig:
        """Returns the arm of the given name.

        Raises:
            ConfigurationError: There is no such arm.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ConfigurationError(f"robot {self.name} has no arm {name!r}; it has {[arm.name for arm in self.arms]}")


def load_robot(path: Union[str, Path]) -> RobotConfig:
    """Reads `config/robots/<name>.yaml`. Raises ConfigurationError naming the key that does not fit."""
    return load_file(RobotConfig, path)
