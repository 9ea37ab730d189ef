"""Converts messages to contracts and back, field by field; no logic."""
from __future__ import annotations

import math
from typing import Dict, Iterable, Optional

import numpy as np
import rospy
from geometry_msgs.msg import PoseStamped

from hybridvla.msg import ActionProposal, ArmSafety, ArmTarget, LimitMargin, PolicyHeartbeat, SafetyStatus
from hybridvla_core import contracts
from hybridvla_core.safety import status as safety


def stamp(seconds: float) -> rospy.Time:
    return rospy.Time.from_sec(seconds if math.isfinite(seconds) and seconds > 0 else 0.0)


def duration(seconds: float) -> rospy.Duration:
    """Converts seconds; NaN and anything beyond a message's range become -1 s, which no age can be."""
    return rospy.Duration.from_sec(seconds if math.isfinite(seconds) and abs(seconds) < 2e9 else -1.0)


def seconds(age: rospy.Duration) -> float:
    """Returns seconds; NaN for the value with which `duration` marks an unknown age."""
    value = age.to_sec()
    return value if value != -1.0 else math.nan


def pose_message(pose: Optional[contracts.Pose], frame: str, when: float) -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id, message.header.stamp = frame, stamp(when)
    if pose is not None:
        point, turn = message.pose.position, message.pose.orientation
        point.x, point.y, point.z = (float(value) for value in pose.position)
        turn.x, turn.y, turn.z, turn.w = (float(value) for value in pose.quaternion)
    return message


def pose_contract(message: PoseStamped) -> contracts.Pose:
    point, turn = message.pose.position, message.pose.orientation
    return contracts.Pose(np.array([point.x, point.y, point.z]), np.array([turn.x, turn.y, turn.z, turn.w]))


def proposal_message(proposal: contracts.Proposal) -> ActionProposal:
    message = ActionProposal()
    message.header.stamp = (rospy.Time(*divmod(proposal.stamp_ns, 10 ** 9)) if proposal.stamp_ns
                            else stamp(proposal.stamp))
    for name in ("epoch", "sequence", "instruction_sequence", "instruction", "checkpoint_sha256", "chunk", "seed"):
        setattr(message, name, getattr(proposal, name))
    message.kind = int(proposal.kind)
    for name in ("observation_age", "camera_spread", "action_period", "valid_for"):
        setattr(message, name, duration(getattr(proposal, name)))
    message.targets = [_target_message(target) for target in proposal.targets]
    for name in ("mean_confidence", "path_distance", "path_angle", "spread_distance", "spread_angle"):
        setattr(message, name, float("nan"))
    prediction = proposal.prediction
    if prediction is not None:
        message.mode, message.fused = int(prediction.mode), bool(prediction.fused)
        message.action_dim = prediction.action.shape[-1]
        for name in ("diffusion", "autoregressive", "action", "token_confidence"):
            value = getattr(prediction, name)
            setattr(message, name, [] if value is None else np.asarray(value, dtype=float).ravel().tolist())
        message.ar_complete, message.noise_seed = prediction.ar_complete, prediction.noise_seed
        message.mean_confidence = prediction.mean_confidence
        message.path_distance, message.path_angle = prediction.path_distance, prediction.path_angle
        message.passes, message.noise_samples = prediction.passes, prediction.noise_samples
        message.spread_distance, message.spread_angle = prediction.spread_distance, prediction.spread_angle
        message.stage_names = list(prediction.stage_ms)
        message.stage_ms = list(prediction.stage_ms.values())
    return message


def _target_message(target: contracts.ArmTarget) -> ArmTarget:
    return ArmTarget(name=target.name, base=pose_message(target.base, target.frame, target.base_stamp),
                     target=pose_message(target.target, target.frame, target.base_stamp),
                     delta_base=int(target.delta_base), gripper=float(target.gripper))


def proposal_contract(message: ActionProposal) -> contracts.Proposal:
    """Raises ValueError for an enumeration value that does not exist; the filter judges the numbers."""
    dims = int(message.action_dim) or 7

    def rows(values: Iterable[float]) -> Optional[np.ndarray]:
        array = np.asarray(values, dtype=float)
        return array.reshape(-1, dims) if array.size and array.size % dims == 0 else None

    action = rows(message.action)
    prediction = None
    if action is not None:
        confidence = np.asarray(message.token_confidence, dtype=float)
        prediction = contracts.Prediction(
            action=action, mode=contracts.Mode(message.mode), fused=message.fused, diffusion=rows(message.diffusion),
            autoregressive=rows(message.autoregressive), ar_complete=message.ar_complete,
            token_confidence=confidence if confidence.size else None, mean_confidence=float(message.mean_confidence),
            path_distance=float(message.path_distance), path_angle=float(message.path_angle),
            noise_seed=int(message.noise_seed), stage_ms=dict(zip(message.stage_names, message.stage_ms)),
            passes=int(message.passes), noise_samples=int(message.noise_samples),
            spread_distance=float(message.spread_distance), spread_angle=float(message.spread_angle))
    targets = tuple(contracts.ArmTarget(
        name=target.name, frame=target.target.header.frame_id, base=pose_contract(target.base),
        base_stamp=target.base.header.stamp.to_sec(), target=pose_contract(target.target),
        delta_base=contracts.DeltaBase(target.delta_base), gripper=float(target.gripper)) for target in message.targets)
    return contracts.Proposal(
        stamp=message.header.stamp.to_sec(), stamp_ns=message.header.stamp.to_nsec(),
        epoch=int(message.epoch), sequence=int(message.sequence), instruction_sequence=int(message.instruction_sequence),
        instruction=message.instruction, valid_for=message.valid_for.to_sec(), targets=targets, kind=contracts.Kind(message.kind),
        action_period=message.action_period.to_sec(), observation_age=message.observation_age.to_sec(),
        camera_spread=message.camera_spread.to_sec(), chunk=int(message.chunk),
        checkpoint_sha256=message.checkpoint_sha256, prediction=prediction, seed=int(message.seed))


def heartbeat_message(heartbeat: contracts.Heartbeat) -> PolicyHeartbeat:
    message = PolicyHeartbeat(
        epoch=heartbeat.epoch, last_sequence=heartbeat.last_sequence,
        instruction_sequence=heartbeat.instruction_sequence, state=int(heartbeat.state),
        in_state=duration(heartbeat.in_state), message=heartbeat.message, warming_up=not heartbeat.ready)
    message.header.stamp = rospy.Time.now()
    return message


def heartbeat_contract(message: PolicyHeartbeat) -> contracts.Heartbeat:
    return contracts.Heartbeat(
        epoch=int(message.epoch), last_sequence=int(message.last_sequence),
        instruction_sequence=int(message.instruction_sequence), state=contracts.PolicyState(message.state),
        in_state=message.in_state.to_sec(), message=message.message, ready=not message.warming_up)


def status_message(status: safety.SafetyStatus, frames: Dict[str, str]) -> SafetyStatus:
    now = rospy.Time.now()
    message = SafetyStatus(
        state=int(status.state), reasons=int(status.reasons), message=status.message, dry_run=status.dry_run, seed=status.seed,
        speed_scale=status.speed_scale, applied_scale=status.applied_scale, epoch=status.epoch,
        sequence=status.sequence, instruction_sequence=status.instruction_sequence,
        proposal_age=duration(status.proposal_age), observation_age=duration(status.observation_age),
        tick_cpu_ms=status.tick_cpu_ms, tick_wall_ms=status.tick_wall_ms,
        counter_names=list(status.counters), counters=list(status.counters.values()))
    message.header.stamp = now
    message.margins = [LimitMargin(m.name, m.margin, m.unit, m.active) for m in status.margins]
    for arm in status.arms:
        frame = frames.get(arm.name, "")
        message.arms.append(ArmSafety(
            name=arm.name, target=pose_message(arm.target, frame, now.to_sec()),
            measured=pose_message(arm.measured, frame, now.to_sec()), position_error=arm.position_error,
            rotation_error=arm.rotation_error, at_target=arm.at_target, gripper_state=int(arm.gripper_state),
            robot_mode=arm.robot_mode, joint_state_age=duration(arm.joint_state_age), push_n=arm.push_n,
            asked=pose_message(arm.asked, frame, now.to_sec() if arm.asked is not None else 0.0), mended=arm.mended))
    return message


def status_contract(message: SafetyStatus) -> safety.SafetyStatus:
    """Returns a status as the filter made it, with the time at which it was sent.

    Raises:
        ValueError: An enumeration value does not exist.
    """
    return safety.SafetyStatus(
        state=safety.State(message.state), reasons=safety.Reason(message.reasons), message=message.message,
        dry_run=message.dry_run, speed_scale=message.speed_scale, applied_scale=message.applied_scale, epoch=int(message.epoch),
        sequence=int(message.sequence), instruction_sequence=int(message.instruction_sequence),
        proposal_age=seconds(message.proposal_age), observation_age=seconds(message.observation_age),
        tick_cpu_ms=message.tick_cpu_ms, tick_wall_ms=message.tick_wall_ms,
        arms=tuple(safety.ArmSafety(
            name=arm.name, target=_sent_pose(arm.target), measured=_sent_pose(arm.measured), position_error=arm.position_error,
            rotation_error=arm.rotation_error, at_target=arm.at_target,
            gripper_state=contracts.GripperState(arm.gripper_state), robot_mode=int(arm.robot_mode),
            joint_state_age=seconds(arm.joint_state_age), push_n=arm.push_n, asked=_sent_pose(arm.asked), mended=arm.mended)
            for arm in message.arms),
        margins=tuple(safety.LimitMargin(m.name, m.margin, m.unit, m.active) for m in message.margins),
        counters={name: int(count) for name, count in zip(message.counter_names, message.counters)},
        seed=int(message.seed), stamp=message.header.stamp.to_sec())


def _sent_pose(message: PoseStamped) -> Optional[contracts.Pose]:
    """Returns a pose of a status; None where it is all zeros, which stands for no pose."""
    pose = pose_contract(message)
    return pose if pose.quaternion.any() else None
