"""Drives a rig without the filter and without ROS: straight lines at constant speed, a pause, then the gripper."""
from __future__ import annotations

from typing import Callable, Iterator, List, Sequence

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from hybridvla_core.contracts import Pose
from hybridvla_core.transforms.conventions import ActionConvention, action_to_targets, state_vector
from hybridvla_sim.experts import expert_action
from hybridvla_sim.piper.arm import MOVE_P
from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.piper.scene import MAX_WIDTH, TIP_M
from hybridvla_sim.suite import AnyRig

SPEED, TURN_SPEED, TICK = 0.25, 1.0, 0.01      # m/s, rad/s, s
SETTLE_S, GRIPPER_S = 0.3, 0.6
LOOK_S = 0.3                                   # s between two looks on the way
FARTHEST_M = 0.7                               # a label beyond this distance follows an object that rolls or flies away


def expert(rig: AnyRig, text: str) -> np.ndarray:
    """Returns the expert's action (7 * arms,) for the true state."""
    found: np.ndarray = expert_action(rig, text)[0]
    return found


def astray(rig: AnyRig, text: str) -> bool:
    """Tells whether a state no longer teaches anything: what the sentence names is lost, or the expert would go very far."""
    return rig.world.lost(text) or bool(np.linalg.norm(rig.world.expert(text).delta, axis=1).max() > FARTHEST_M)


def drive(rig: AnyRig, convention: ActionConvention, text: str, most: int, rng: np.random.Generator, noise: float = 0.0,
          choose: Callable[[AnyRig, str], np.ndarray] = expert) -> Iterator[str]:
    """Acts until the task is done or its object is lost, and yields whenever a frame can be recorded.

    Args:
        rig: Rig, already reset.
        convention: Convention of actions.
        text: The sentence.
        most: Largest number of keyframes.
        rng: Generator that draws the noise.
        noise: Standard deviation of the noise on the position of each action, m; ten times that in rad on the yaw.
        choose: Function that acts: it returns the next action (7 * arms,) for the rig and the sentence.

    Yields:
        `keyframe` at rest before each keyframe, `way` in the middle of one, `done` when the task is done.
    """
    for _ in range(most):
        if rig.world.success(text):
            yield "done"
            return
        if astray(rig, text):
            return
        yield "keyframe"
        action = choose(rig, text)
        if noise:
            arms = action.reshape(-1, 7)
            arms[:, :3] += rng.normal(0.0, noise, arms[:, :3].shape)
            arms[:, 5] += rng.normal(0.0, 10.0 * noise, len(arms))
        for event in _execute(rig, convention, action):
            if astray(rig, text):
                return
            yield event
    if rig.world.success(text):
        yield "done"


def state_of(rig: AnyRig, convention: ActionConvention) -> np.ndarray:
    """Returns the state (7 * arms,) in the form of a policy's input."""
    states = rig.arm_states()
    return state_vector(convention, [state.pose for state in states], [state.gripper for state in states])


def _execute(rig: AnyRig, convention: ActionConvention, action: np.ndarray) -> Iterator[str]:
    starts = [state.pose for state in rig.arm_states()]
    targets = action_to_targets(convention, action, starts)[0]
    goals = [pose for pose, _ in targets]
    turns = [Slerp([0.0, 1.0], Rotation.from_quat([start.quaternion, goal.quaternion])) for start, goal in zip(starts, goals)]
    seconds = max(max(float(np.linalg.norm(goal.position - start.position)) / SPEED,
                      float((turn(0.0).inv() * turn(1.0)).magnitude()) / TURN_SPEED)
                  for start, goal, turn in zip(starts, goals, turns))
    ticks = max(1, int(seconds / TICK))
    every = int(LOOK_S / TICK)
    for tick in range(1, ticks + 1):
        share = tick / ticks
        _send(rig, [Pose(start.position + share * (goal.position - start.position), turn(share).as_quat())
                    for start, goal, turn in zip(starts, goals, turns)])
        rig.step(TICK)
        if tick % every == 0 and ticks - tick > every // 2:
            yield "way"
    rig.step(SETTLE_S)
    openings = [opening for _, opening in targets]
    if any(abs(opening - state.gripper) > 0.2 for opening, state in zip(openings, rig.arm_states())):
        _grip(rig, openings)
        rig.step(GRIPPER_S)


def _send(rig: AnyRig, poses: Sequence[Pose]) -> None:
    if not isinstance(rig, PiperRig):
        rig.set_equilibrium_pose(poses[0].position, poses[0].quaternion)
        return
    for arm, pose in zip(rig.arms.values(), poses):
        rotation = Rotation.from_quat(pose.quaternion)
        flange = pose.position - TIP_M * rotation.as_matrix()[:, 2]
        arm.motion_ctrl(MOVE_P, 100.0)
        arm.end_pose_ctrl(np.round(flange * 1e6).tolist(), np.round(rotation.as_euler("xyz", degrees=True) * 1e3).tolist())


def _grip(rig: AnyRig, openings: List[float]) -> None:
    if not isinstance(rig, PiperRig):
        rig.command_gripper(float(np.clip(openings[0], 0.0, 1.0)))
        return
    for arm, opening in zip(rig.arms.values(), openings):
        arm.gripper_ctrl(int(round(float(np.clip(opening, 0.0, 1.0)) * MAX_WIDTH * 1e6)))
