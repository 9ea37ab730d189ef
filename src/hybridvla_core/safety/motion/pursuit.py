"""The next tool velocity towards a goal: straight, smooth, as fast as the limits allow, at rest on arrival.

Two cascaded square-root controllers (position to velocity, velocity to acceleration) that are linear near zero, so
that speed, acceleration and jerk stay within their bounds and nothing overshoots at full scale (at a scale of 0.4 by 0.08 mm).
Translation and rotation of an arm, and both arms when coupled, share one clock and arrive together. Lengths are expressed in
seconds at full speed.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.limits import BRAKING_SHARE

PLAN = BRAKING_SHARE  # share of the acceleration limit the motion plans with; braking uses the same share
PEAK = 0.95           # share of it that the motion may reach
CRUISE = 0.98         # share of the speed limit
BITES = 4.0           # number of ticks over which the last stretch before a deadline is spread


@dataclass(frozen=True)
class Goal:
    """Where the arms should go.

    Attributes:
        positions: (A, 3) positions in the arms' base frames, m.
        rotations: (A, 3, 3) rotations in the arms' base frames.
        seconds: Time to arrive, s; 0: at once.
    """

    positions: np.ndarray
    rotations: np.ndarray
    seconds: float = 0.0


class Pursuit:
    """Computes the twist of the next tick from where the arms are; stateless."""

    def __init__(self, config: RobotConfig) -> None:
        limits = [arm.cartesian_limits for arm in config.arms]
        self._dt = config.dt
        self._speed = _columns([(x.speed_m_s, x.rotation_speed_rad_s) for x in limits]) * CRUISE
        self._acceleration = _columns([(x.acceleration_m_s2, x.rotation_acceleration_rad_s2) for x in limits])
        self._jerk = _columns([(x.jerk_m_s3, x.rotation_jerk_rad_s3) for x in limits])
        self._groups: Sequence[slice] = ([slice(None)] if config.coupled
                                         else [slice(i, i + 1) for i in range(len(limits))])

    def next_twist(self, error: np.ndarray, twist: np.ndarray, acceleration: np.ndarray, scale: float,
                   seconds: float = 0.0, loads: Optional[np.ndarray] = None) -> np.ndarray:
        """Computes the twist of the next tick.

        Args:
            error: (A, 6) goal minus pose, m over rotation vector.
            twist: (A, 6) twist of the last tick, m/s over rad/s.
            acceleration: (A, 6) acceleration of the last tick, m/s^2 over rad/s^2.
            scale: Scale of the speed, in (0, 1].
            seconds: Time until the goal is due, s; 0 for as fast as allowed.
            loads: (A, dof, 6) shares of the joints' acceleration limits that a tool acceleration uses.

            Returns:
                (A, 6) twist, m/s over rad/s.
        """
        result = np.empty_like(error)
        for group in self._groups:
            result[group] = self._group(error[group], twist[group], acceleration[group], scale, seconds,
                                        (self._speed[group], self._acceleration[group], self._jerk[group]),
                                        None if loads is None else loads[group])
        return result

    def rate(self, twist: np.ndarray) -> float:
        """Returns the largest share of the speed limits in use at twist (A, 6)."""
        return float((_norms(twist) / self._speed).max())

    def _group(self, error: np.ndarray, twist: np.ndarray, acceleration: np.ndarray, scale: float, seconds: float,
               limits: Tuple[np.ndarray, np.ndarray, np.ndarray], loads: Optional[np.ndarray]) -> np.ndarray:
        speed_limit, acceleration_limit, jerk_limit = limits

        def load(change: np.ndarray) -> float:
            """Returns the largest share of a tool's or joint's acceleration limit that this change (A, 6) uses."""
            share = float((_norms(change) / acceleration_limit).max())
            return share if loads is None else max(share, float(np.abs(loads @ change[:, :, None]).max()))

        speed_limit = speed_limit * scale
        norms = _norms(error)
        distance = float((norms / speed_limit).max())
        wanted, slowing = np.zeros_like(error), np.zeros_like(error)
        if distance > 1e-9:
            direction = error / distance
            share = np.maximum(_norms(direction), 1e-9)
            a = PLAN / max(load(direction), 1e-9)
            gain = min(float((jerk_limit / share).min()) / a, 0.15 / self._dt)
            rate = _square_root(distance, gain, a)
            planned = min(rate, 1.0)
            if seconds > 0.0:
                planned = min(planned, distance / max(seconds, BITES * self._dt))
            wanted = direction * planned
            if planned >= rate:
                slowing = direction * -min(a, gain * rate)
        change = wanted - twist
        size = _norms(change)
        magnitude = load(change)
        if magnitude > 0.0:
            share = np.maximum(size / magnitude, 1e-9)
            jerk = float((jerk_limit / share).min())
            push = change * (_square_root(magnitude, 0.3 / self._dt, jerk) / magnitude)
        else:
            push = change
        wish = push + slowing
        wish *= min(1.0, PEAK / max(load(wish), 1e-9))
        step = wish - acceleration
        wish = acceleration + step * _at_most(_norms(step), jerk_limit * self._dt)
        wish *= min(1.0, PEAK / max(load(wish), 1e-9))
        return twist + wish * self._dt


def _columns(pairs: Sequence) -> np.ndarray:
    return np.array(pairs, dtype=float)


def _norms(twist: np.ndarray) -> np.ndarray:
    """Returns (A, 2): lengths of the linear and of the angular half."""
    return np.sqrt(np.add.reduce((twist * twist).reshape(len(twist), 2, 3), axis=2))


def _at_most(sizes: np.ndarray, limits: np.ndarray) -> float:
    """Returns the common factor that brings every size to its limit or below."""
    worst = float((sizes / limits).max())
    return 1.0 if worst <= 1.0 else 1.0 / worst


def _square_root(distance: float, gain: float, acceleration: float) -> float:
    """Returns the speed from which `acceleration` stops within the distance; gain times distance near zero."""
    linear = acceleration / (gain * gain)
    if distance <= linear:
        return gain * distance
    return math.sqrt(2.0 * acceleration * (distance - 0.5 * linear))
