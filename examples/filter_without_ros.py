"""The safety filter without ROS: a target outside the workspace goes in, commands that stay inside come out.

    .venv/bin/python examples/filter_without_ros.py
"""
from __future__ import annotations

import numpy as np

from hybridvla_core.contracts import ArmState, ArmTarget, DeltaBase, Heartbeat, PolicyState, Pose, Proposal
from hybridvla_core.geometry import rotations
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.filter import SafetyFilter

SECONDS = 4.0
BEYOND_M = 0.5


def main() -> None:
    """Asks for a target half a metre outside the box and prints where the filter leads the arm."""
    robot = load_robot(ROOT / "config" / "robots" / "sim_fr3.yaml")
    arm = robot.arms[0]
    safety = SafetyFilter(robot)
    joints, now, position = np.array(arm.start_joints_rad), 1.0, np.zeros(3)
    outside = Pose(np.array(arm.workspace.upper_m) + BEYOND_M, rotations.to_quaternion(safety.commanded_rotations[0]))

    for tick in range(round(SECONDS / robot.dt)):
        now += robot.dt     # the filter has no clock of its own: it is told the time
        safety.update_arm_state(ArmState(arm.name, arm.joint_names, joints), now)
        safety.on_heartbeat(Heartbeat(1, 0, 1, PolicyState.INFERRING), now)
        if tick == 1:
            safety.activate(True, now)
        if tick == 2:
            target = ArmTarget(arm.name, arm.base_frame, outside, now, outside, DeltaBase.COMMANDED, 1.0)
            safety.on_proposal(Proposal(now, 1, 1, 1, "example", 30.0, (target,)), now)
        command = safety.tick(now).arms[0]
        if command.publish:     # this robot goes exactly where it is sent
            joints, position = np.array(command.joint_positions), np.array(command.pose.position)

    print(f"asked for   {np.round(outside.position, 3)} m")
    print(f"sent to     {np.round(position, 3)} m")
    print(f"workspace   {arm.workspace.lower_m} to {arm.workspace.upper_m} m")
    inside = bool((position <= np.array(arm.workspace.upper_m) + 1e-6).all())
    print(f"inside: {'yes' if inside else 'no'}")


if __name__ == "__main__":
    main()
