"""What dynamic_reconfigure may change in a running filter. An illegal value is refused, never clipped to a legal one."""
from __future__ import annotations

import math
from typing import Callable, Dict, Union

import rospy
from dynamic_reconfigure.server import Server

from hybridvla.cfg import SafetyConfig
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.robots.config import LEAST_SCALE

#: Type of a dynamic_reconfigure parameter's value.
Value = Union[bool, int, float, str]


class SafetyParameters(Server):
    """apply(speed_scale, dry_run) raises ConfigurationError to refuse a value; refused(text) is called for every refusal.

    By itself, the server replaces a value out of range by the nearest legal one: 5 would silently become full speed.
    """

    def __init__(self, speed_scale: float, dry_run: bool, apply: Callable[[float, bool], None],
                 refused: Callable[[str], None]) -> None:
        self._apply, self._refused = apply, refused
        self._held: Dict[str, Value] = {"speed_scale": speed_scale, "dry_run": dry_run}
        self._begun = False
        # The server compares each value with its bounds: an empty launch-file argument is not a number, and `no` is not a flag.
        rospy.set_param("~speed_scale", speed_scale)
        rospy.set_param("~dry_run", dry_run)
        super().__init__(SafetyConfig, self._change)
        self._begun = True

    def update_configuration(self, changes: Dict[str, Value]) -> Dict[str, Value]:
        wanted = {**self._held, **{key: changes[key] for key in self._held if key in changes}}
        scale = float(wanted["speed_scale"])
        try:
            if not (math.isfinite(scale) and LEAST_SCALE <= scale <= 1.0):
                raise ConfigurationError(f"speed_scale is {scale}; use a number from {LEAST_SCALE} to 1")
            self._apply(scale, bool(wanted["dry_run"]))
            self._held = wanted
        except ConfigurationError as error:
            self._refused(f"a parameter was refused: {error}")
        return super().update_configuration(dict(self._held))

    def _change(self, values: Dict[str, Value], _level: int) -> Dict[str, Value]:
        # The first call carries the server's defaults; the values from the launch file stay in force.
        for key, value in self._held.items():
            values[key] = value
        return values
