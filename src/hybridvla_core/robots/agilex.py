"""What an AgileX driver needs to be told, beside the arms themselves. Frozen and checked."""
from __future__ import annotations

from dataclasses import dataclass

from hybridvla_core.configuration import require

UNITS = ("m_rad", "mm_deg")


@dataclass(frozen=True)
class AgilexConfig:
    """Section `agilex` of a robot configuration.

    Attributes:
        command_hz: How often joints are streamed, at most the filter's tick rate.
        pos_cmd_hz: The same for `PosCmd`, each of which the driver plans from point to point.
        speed_percent: velocity[6] of a joint command; the two-arm driver ignores it, later single-arm ones take it as speed.
        gripper_effort_nm: effort[6], 0.5 to 3 N m.
        pos_cmd_units: `probe` (decided at start by the driver's own end pose), `m_rad`, or `mm_deg` (drivers of 2024).
        follow_rad: A joint further from its command means that the arm does not follow (disabled, blocked, or taken over by its
            teach button), rad.
        follow_s: For that long, s.
    """

    command_hz: float
    pos_cmd_hz: float
    speed_percent: int
    gripper_effort_nm: float
    pos_cmd_units: str
    follow_rad: float
    follow_s: float

    def __post_init__(self) -> None:
        require(10.0 <= self.command_hz <= 200.0, "agilex: command_hz must lie between 10 and 200")
        require(1.0 <= self.pos_cmd_hz <= 50.0, "agilex: pos_cmd_hz must lie between 1 and 50")
        require(1 <= self.speed_percent <= 100, "agilex: speed_percent must lie between 1 and 100")
        require(0.5 <= self.gripper_effort_nm <= 3.0, "agilex: gripper_effort_nm must lie between 0.5 and 3")
        require(self.pos_cmd_units in ("probe", *UNITS),
                f"agilex: pos_cmd_units is {self.pos_cmd_units!r}; use probe, {' or '.join(UNITS)}")
        require(0.0 < self.follow_rad <= 1.0 and 0.0 < self.follow_s <= 2.0,
                "agilex: follow_rad must lie between 0 and 1, follow_s between 0 and 2")
