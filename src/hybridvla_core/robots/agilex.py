"""What an AgileX driver needs to know besides the arms themselves. Frozen and checked."""
from __future__ import annotations

from dataclasses import dataclass

from hybridvla_core.configuration import in_range, require

UNITS = ("m_rad", "mm_deg")


@dataclass(frozen=True)
class AgilexConfig:
    """Section `agilex` of a robot configuration.

    Attributes:
        command_hz: Highest rate at which joints are streamed: the filter's tick rate divided by the next whole number.
        pos_cmd_hz: Highest rate of `PosCmd`, in the same way; the driver plans each of them from point to point.
        speed_percent: velocity[6] of a joint command; the two-arm driver ignores it, later single-arm drivers take it as speed.
        gripper_effort_nm: effort[6], 0.5 to 3 N m.
        pos_cmd_units: `probe` (the driver's own end pose decides at start), `m_rad`, or `mm_deg` (drivers of 2024).
        follow_rad: Distance of a joint from its command, rad, beyond which the arm counts as not following (disabled, blocked,
            or taken over by its teach button).
        follow_s: Time for which a joint has to stay beyond `follow_rad`, s.
    """

    command_hz: float
    pos_cmd_hz: float
    speed_percent: int
    gripper_effort_nm: float
    pos_cmd_units: str
    follow_rad: float
    follow_s: float

    def __post_init__(self) -> None:
        in_range("agilex: command_hz", self.command_hz, 10.0, 200.0)
        in_range("agilex: pos_cmd_hz", self.pos_cmd_hz, 1.0, 50.0)
        in_range("agilex: speed_percent", self.speed_percent, 1, 100)
        in_range("agilex: gripper_effort_nm", self.gripper_effort_nm, 0.5, 3.0)
        require(self.pos_cmd_units in ("probe", *UNITS),
                f"agilex: pos_cmd_units is {self.pos_cmd_units!r}; use probe, {' or '.join(UNITS)}")
        in_range("agilex: follow_rad", self.follow_rad, 0.0, 1.0, above=True)
        in_range("agilex: follow_s", self.follow_s, 0.0, 2.0, above=True)
