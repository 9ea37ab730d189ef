"""What a Franka arm driven by franka_ros needs to know besides limits and tool. Frozen and checked."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hybridvla_core.configuration import Vector, in_range, require
from hybridvla_core.robots.limits import STRONGEST_N

if TYPE_CHECKING:
    from hybridvla_core.robots.arm import ArmConfig

#: Largest values that the example controller's dynamic_reconfigure accepts: N/m, N m/rad, N m/rad.
MOST_STIFFNESS = (400.0, 30.0, 100.0)
HEADROOM = 1.25     # collision thresholds must exceed the push at rest that the leash allows by this factor
STRONGEST_NM = 200.0    # highest threshold: the arm's own joints have less
FARTHEST_CENTER_M = 0.5     # from the flange to what the hand holds: millimetres read as metres exceed it


@dataclass(frozen=True)
class FrankaConfig:
    """Section `franka` of a robot configuration.

    Attributes:
        impedance_controller: Name of the impedance controller in the controller manager.
        trajectory_controller: Name of the trajectory controller in the controller manager.
        translational_stiffness_n_m: Translational stiffness of the impedance controller, N/m; must equal the leash's.
        rotational_stiffness_nm_rad: Rotational stiffness of the impedance controller, N m/rad.
        nullspace_stiffness_nm_rad: Null-space stiffness of the impedance controller, N m/rad.
        collision_torque_nm: (7,) torque thresholds of a reflex, N m.
        collision_force_n: (6,) force thresholds of a reflex, N and N m.
        contact_share: Share of these thresholds at which the contact flag is set.
        min_state_hz: Lowest accepted rate of `franka_states` by the robot's own clock, Hz.
        tool_center_m: (3,) the tool's centre of mass from the flange, m; set_load tells it and tool.mass_kg to the robot, beyond
            what Desk knows.
        start_speed_rad_s: Speed of the fastest joint on the way to the start, rad/s.
        opens_at_start: Whether the gripper opens before that motion, so that whatever it holds falls.
        trajectory_ahead_s: Time to each target on the joint door, s; the leash expects it as that controller's lag.
        grasp_epsilon_m: How far from closed a grasp may end and still count (the width of the widest object), m.
        slip_m: How far the fingers must close further after a grasp for the object to count as slipped out, m.
    """

    impedance_controller: str
    trajectory_controller: str
    translational_stiffness_n_m: float
    rotational_stiffness_nm_rad: float
    nullspace_stiffness_nm_rad: float
    collision_torque_nm: Vector
    collision_force_n: Vector
    contact_share: float
    min_state_hz: float
    tool_center_m: Vector
    start_speed_rad_s: float
    opens_at_start: bool
    trajectory_ahead_s: float
    grasp_epsilon_m: float
    slip_m: float

    def __post_init__(self) -> None:
        values = (self.translational_stiffness_n_m, self.rotational_stiffness_nm_rad, self.nullspace_stiffness_nm_rad)
        for value, most in zip(values, MOST_STIFFNESS):
            require(0.0 < value <= most, f"franka: a stiffness of {value} is outside 0 to {most}, what the controller takes")
        require(len(self.collision_torque_nm) == 7 and min(self.collision_torque_nm) > 0.0,
                "franka: collision_torque_nm needs seven positive numbers")
        require(len(self.collision_force_n) == 6 and min(self.collision_force_n) > 0.0,
                "franka: collision_force_n needs six positive numbers")
        for key, most in (("collision_torque_nm", STRONGEST_NM), ("collision_force_n", STRONGEST_N)):
            for value in getattr(self, key):
                in_range(f"franka: {key}", value, 0.0, most)
        require(0.0 < self.contact_share < 1.0, f"franka: contact_share must lie between 0 and 1, and is {self.contact_share:g}")
        in_range("franka: min_state_hz", self.min_state_hz, 20.0, 1000.0)
        require(len(self.tool_center_m) == 3, f"franka: tool_center_m needs three numbers, and has {len(self.tool_center_m)}")
        for value in self.tool_center_m:
            in_range("franka: tool_center_m", value, -FARTHEST_CENTER_M, FARTHEST_CENTER_M)
        in_range("franka: start_speed_rad_s", self.start_speed_rad_s, 0.0, 1.0, above=True)
        in_range("franka: trajectory_ahead_s", self.trajectory_ahead_s, 0.005, 0.5)
        in_range("franka: grasp_epsilon_m", self.grasp_epsilon_m, 0.0, 0.5, above=True)
        in_range("franka: slip_m", self.slip_m, 0.0, 0.1, above=True)

    @property
    def compliance_node(self) -> str:
        """Name of the node through which the impedance controller announces and accepts its stiffness."""
        return f"/{self.impedance_controller}/dynamic_reconfigure_compliance_param_node"

    def check_arm(self, arm: ArmConfig) -> None:
        """Raises ConfigurationError if stiffness, leash and collision thresholds do not fit each other."""
        leash = arm.leash
        require(abs(leash.stiffness_n_m - self.translational_stiffness_n_m) < 1e-6,
                f"arm {arm.name}: leash.stiffness_n_m is {leash.stiffness_n_m}, franka.translational_stiffness_n_m "
                f"{self.translational_stiffness_n_m}; they are the same spring")
        limits, reflex = arm.cartesian_limits, min(self.collision_force_n[:3])
        # The speed can be scaled up while the filter runs, so the full speed counts.
        reached = max(HEADROOM * leash.max_force_n, leash.reached_n(limits.speed_m_s, limits.acceleration_m_s2))
        require(reflex >= reached,
                f"arm {arm.name}: leash.max_force_n {leash.max_force_n} pushes up to the reflex at {reflex} N: an arm that is "
                f"stopped at {limits.speed_m_s:g} m/s is pushed with {reached:.0f} N for a moment; raise "
                "franka.collision_force_n, or lower the leash, its lag_s or the tool's speed_m_s")
