"""All limits of a robot. A new limit needs a file here, an entry in `build`, and a test."""
from __future__ import annotations

from typing import Tuple

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.limits.cartesian_speed import CartesianAccelerationLimit, CartesianSpeedLimit
from hybridvla_core.safety.limits.inter_arm import InterArmLimit
from hybridvla_core.safety.limits.joint_motion import JointAccelerationLimit, JointVelocityLimit
from hybridvla_core.safety.limits.joint_position import JointPositionLimit
from hybridvla_core.safety.limits.limit import Limit
from hybridvla_core.safety.limits.rotation_speed import RotationAccelerationLimit, RotationSpeedLimit
from hybridvla_core.safety.limits.self_collision import SelfCollisionLimit
from hybridvla_core.safety.limits.singularity import SingularityLimit
from hybridvla_core.safety.limits.table import TableLimit
from hybridvla_core.safety.limits.workspace import WorkspaceLimit


def build(config: RobotConfig) -> Tuple[Limit, ...]:
    """Builds the limits, cheap ones first: the first broken limit ends the judgement of a candidate."""
    arms = config.arms
    return (JointPositionLimit(arms), JointVelocityLimit(arms), JointAccelerationLimit(arms), WorkspaceLimit(arms),
            CartesianSpeedLimit(arms), CartesianAccelerationLimit(arms), RotationSpeedLimit(arms),
            RotationAccelerationLimit(arms), TableLimit(arms), SelfCollisionLimit(arms),
            InterArmLimit(arms, config.inter_arm_margin_m), SingularityLimit(arms))
