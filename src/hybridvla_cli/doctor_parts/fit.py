"""Checks before anything runs whether checkpoint, policy configuration and robot fit each other."""
from __future__ import annotations

from pathlib import Path
from typing import List

import numpy as np

from hybridvla_cli.doctor_parts.findings import FAILURE, OK, WARNING, Finding
from hybridvla_core.checkpoints.format import Checkpoint, read_checkpoint
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import misfits
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.transforms.conventions import DOF_PER_ARM
from hybridvla_core.transforms.normalise import Normaliser

#: Share of a data set's positions, by the range of each axis, that must be in the workspace.
LEAST_INSIDE = 0.5


def check_fit(checkpoint: Path, config: PolicyConfig, robot: RobotConfig) -> Finding:
    """Checks the cameras in order, the action convention key by key, arms and frames."""
    found = misfits(read_checkpoint(checkpoint).config, config, robot)
    if found:
        return Finding("fit", FAILURE, ". ".join(found), "correct the policy configuration as stated; the node would refuse to "
                                                         "start")
    return Finding("fit", OK, f"checkpoint, policy configuration and robot {robot.name} mean the same things")


def check_statistics(checkpoint: Path, robot: RobotConfig) -> Finding:
    """Compares where the data were with where this robot may go."""
    read = read_checkpoint(checkpoint)
    outside = [text for index, name in enumerate(read.config.convention.arms) for text in _outside(read, robot, index, name)]
    if outside:
        return Finding("statistics", WARNING, f"{'; '.join(outside)}: the policy was trained elsewhere and will ask for what the "
                       "filter does not allow", "correct workspace or mount in config/robots, or fine-tune on this robot's data")
    return Finding("statistics", OK, f"the positions of the data lie in the workspace of {robot.name}")


def _outside(read: Checkpoint, robot: RobotConfig, index: int, name: str) -> List[str]:
    arm = next((arm for arm in robot.arms if arm.name == name), None)
    if arm is None or read.config.untrained:
        return []
    scale = Normaliser.from_json(read.statistics, read.config.statistics_key, read.config.model.action_dim,
                                 str(read.folder)).state
    first = index * DOF_PER_ARM
    found = []
    for axis in range(3):
        low, high = float(scale.q01[first + axis]), float(scale.q99[first + axis])
        inside = min(high, arm.workspace.upper_m[axis]) - max(low, arm.workspace.lower_m[axis])
        if np.isfinite([low, high]).all() and (inside < 0.0 or inside < LEAST_INSIDE * (high - low)):
            found.append(f"arm {name}: {'xyz'[axis]} in the data {low:.2f} to {high:.2f} m, in the workspace "
                         f"{arm.workspace.lower_m[axis]:.2f} to {arm.workspace.upper_m[axis]:.2f} m")
    return found
