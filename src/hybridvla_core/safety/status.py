"""What the filter reports: states, reasons, margins, counters. Mirrors `hybridvla/SafetyStatus`."""
from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import GripperState, Pose


class State(enum.IntEnum):
    """What the filter does."""

    INACTIVE = 0        # commands nothing
    ACTIVE = 1          # carries out a proposal
    HOLDING = 2         # commands the arms to stay; continues by itself once the reasons are gone and there is a target
    STOPPED = 3         # brakes, then holds, until somebody calls `resume`
    RECOVERING = 4      # leads the arms slowly (`reenter`, `go_to_start`); INACTIVE at the end


class Reason(enum.IntFlag):
    """Why the filter does not follow, or what is wrong; docs/safety.md says what the filter does for each flag."""

    NONE = 0
    PROPOSAL_STALE = 1 << 0         # no valid proposal: none came, it has expired, or its observation was old
    HEARTBEAT_LOST = 1 << 1         # the policy is silent, or reports a fault
    PROPOSAL_INVALID = 1 << 2       # the last proposal is nothing that this robot could do
    PROPOSAL_ORDER = 1 << 3         # the last proposal is repeated, out of order, or another policy's
    SECOND_PUBLISHER = 1 << 4       # two nodes send proposals or heartbeats
    JOINT_STATE = 1 << 5            # joint states are missing, late or impossible (a jump, not finite)
    ROBOT_MODE = 1 << 6             # the robot accepts no commands: reflex, user stop, guiding, motors switched off
    CLOCK_JUMP = 1 << 7             # the clock jumped, or the filter was paused
    OPERATOR = 1 << 8               # `stop` was called or could not be heard, `activate false` still brakes, or the node failed
    DEADMAN = 1 << 9                # the dead-man switch is released or silent
    OUTSIDE_AT_START = 1 << 10      # an arm stands outside a limit before it moves; `reenter` leads it back
    SOLVER = 1 << 11                # no joint step was found, or the computation failed
    LAST_CHECK = 1 << 12            # the independent last check refused a command that was about to be sent
    LEASH = 1 << 13                 # an arm lags its command by more than its leash
    MEASURED_LIMIT = 1 << 14        # a measured value is outside its limit
    COLLISION = 1 << 15             # links, or a link and the table, would come too close
    SINGULARITY = 1 << 16           # the motion leads into a singularity
    OTHER_ARM = 1 << 17             # the other arm, or the distance to it, holds this arm back
    GRIPPER = 1 << 18               # a gripper did not finish its command
    CONTROLLER = 1 << 19            # the controller after the filter changed, or another node commands the arm
    CONFIGURATION = 1 << 20         # a run-time parameter was refused
    TICK_OVERRUN = 1 << 21          # the filter's ticks are late
    TCP_MISMATCH = 1 << 22          # the driver's tool pose disagrees with ours
    WORKSPACE = 1 << 23             # the target is outside box or planes
    JOINT_LIMIT = 1 << 24           # a joint limit is in the way


SENTENCES = {
    Reason.PROPOSAL_STALE: "no valid proposal; waiting for the policy",
    Reason.HEARTBEAT_LOST: "the policy's heartbeat is lost; check policy_node",
    Reason.PROPOSAL_INVALID: "the last proposal was no motion; check the policy's output",
    Reason.PROPOSAL_ORDER: "the last proposal was out of order; check for a second policy or a replay",
    Reason.SECOND_PUBLISHER: "a second publisher sends proposals; stop one of them",
    Reason.JOINT_STATE: "joint states are missing or unusable; check the driver",
    Reason.ROBOT_MODE: "the robot does not accept commands; recover it, then call resume",
    Reason.CLOCK_JUMP: "the clock jumped or the filter was paused; waiting for a new proposal",
    Reason.OPERATOR: "stopped by the operator; call resume to go on",
    Reason.DEADMAN: "the deadman is released or silent; press it to go on",
    Reason.OUTSIDE_AT_START: "an arm is outside a limit; call reenter",
    Reason.SOLVER: "no joint step was found; the arms brake",
    Reason.LAST_CHECK: "the last check refused a command; the arms hold",
    Reason.LEASH: "an arm does not follow its command; free it or lower the target",
    Reason.MEASURED_LIMIT: "a measured value is outside its limit; the arms hold",
    Reason.COLLISION: "the motion would bring links together; the arms keep their distance",
    Reason.SINGULARITY: "the motion leads into a singularity; it is slowed",
    Reason.OTHER_ARM: "the other arm holds this one",
    Reason.GRIPPER: "the gripper did not finish its command; check the gripper",
    Reason.CONTROLLER: "the controller behind the filter changed; see to it, then call resume",
    Reason.CONFIGURATION: "a run-time parameter was refused",
    Reason.TICK_OVERRUN: "ticks come late; check the computer's load",
    Reason.TCP_MISMATCH: "the driver's tool pose disagrees with ours; check the tool in config/robots",
    Reason.WORKSPACE: "the target lies outside the workspace; the arm goes only as far as allowed",
    Reason.JOINT_LIMIT: "a joint limit stands in the way; choose another target",
}

HEADINGS = {
    State.INACTIVE: "inactive; call activate to move",
    State.ACTIVE: "moving on the policy's word",
    State.HOLDING: "holding",
    State.STOPPED: "stopped",
    State.RECOVERING: "leading the arms back inside their limits",
}
TO_START = "leading the arms slowly"      # in RECOVERING, if no arm is outside


def status_sentence(state: State, reasons: Reason, detail: str) -> str:
    """Returns one sentence: what, where, what to do. `detail` replaces the stock sentence of the reasons."""
    stock = [text for flag, text in SENTENCES.items() if reasons & flag]
    text = detail or (stock[0] if stock else "")
    to_start = state == State.RECOVERING and not reasons & Reason.OUTSIDE_AT_START
    heading = TO_START if to_start else HEADINGS[state]
    return f"{heading}: {text}" if text else heading


_BITS = [(str(flag.name), int(flag)) for flag in Reason if flag]


def flag_names(reasons: Reason) -> str:
    """Returns the names of the flags, as in PROPOSAL_STALE|DEADMAN."""
    bits = int(reasons)        # plain integers: bit operations on an enumeration take ten times as long, and this runs every tick
    return "|".join(name for name, bit in _BITS if bits & bit)


#: Answer to calls that move arms and make no sense without commands.
NOT_DRY = "this is a dry run: nothing is commanded"
#: What to do about an arm outside a limit; in a dry run nothing leads the arm.
REENTER, BY_HAND = "call reenter", "launch with armed:=true and call reenter, or move the arm by hand"
#: Reasons for which arms stand still before reaching their target.
STANDSTILL = (Reason.WORKSPACE | Reason.JOINT_LIMIT | Reason.COLLISION | Reason.SINGULARITY | Reason.OTHER_ARM
              | Reason.SOLVER)


def waits(state: State, reasons: Reason) -> bool:
    """Returns whether only another proposal is needed for motion to continue."""
    return state == State.HOLDING and bool(reasons) and not reasons & ~(Reason.PROPOSAL_STALE | STANDSTILL | Reason.GRIPPER)


class LimitMargin(NamedTuple):
    """How far away one limit is.

    Attributes:
        name: Name of the limit, such as `right/joint_4/position` or `workspace/z_min`.
        margin: Distance to the limit; >= 0 inside.
        unit: Unit of the margin.
        active: Whether the limit shaped the last motion.
    """

    name: str
    margin: float
    unit: str
    active: bool = False


@dataclass(frozen=True)
class ArmSafety:
    """One arm in the status.

    Attributes:
        target: the pose sent.
        measured: the pose of the measured joints.
        position_error: distance from the pose sent to the goal, m.
        rotation_error: angle from the pose sent to the goal, rad.
        at_target: whether the request has been carried out, the gripper included.
        gripper_state: the gripper's state as the driver reports it.
        robot_mode: the driver's own value.
        joint_state_age: age of the joint state, since receipt and by the growth of (arrival - stamp), s.
        push_n: force of the spring between command and arm, N; NaN on a joint door and without a measured pose.
        asked: the pose that the proposal asked for; None without a proposal.
        mended: whether the goal differs from the request because it was brought inside the workspace.
    """

    name: str
    target: Optional[Pose]
    measured: Optional[Pose]
    position_error: float
    rotation_error: float
    at_target: bool
    gripper_state: GripperState
    robot_mode: int
    joint_state_age: float
    push_n: float = float("nan")
    asked: Optional[Pose] = None
    mended: bool = False


@dataclass(frozen=True)
class SafetyStatus:
    """What the filter reports about itself.

    Attributes:
        state: State of the filter.
        reasons: Why the filter does not follow, or what is wrong.
        message: State and reasons in one sentence.
        dry_run: Whether everything is computed and nothing commanded.
        speed_scale: Speed scale as configured, from 0.01 to 1.
        applied_scale: Speed scale of this tick, in [0, 1].
        epoch: Epoch of the proposal being executed; 0 without one.
        sequence: Sequence number of that proposal.
        instruction_sequence: Instruction sequence number of that proposal.
        proposal_age: Time since that proposal was received, s; NaN without one.
        observation_age: Time since the observation behind that proposal, s; NaN without one.
        tick_cpu_ms: CPU time of the control thread, ms.
        tick_wall_ms: Wall time of the tick, ms.
        arms: One entry for each arm, in the robot's order.
        margins: How far away the limits are.
        counters: Counts since the start, by name.
        seed: Number that grows with every re-seed; 0 before the first.
        stamp: Time at which the status was sent, s; NaN inside the filter.
    """

    state: State
    reasons: Reason
    message: str
    dry_run: bool
    speed_scale: float
    applied_scale: float
    epoch: int = 0
    sequence: int = 0
    instruction_sequence: int = 0
    proposal_age: float = float("nan")
    observation_age: float = float("nan")
    tick_cpu_ms: float = 0.0
    tick_wall_ms: float = 0.0
    arms: Tuple[ArmSafety, ...] = ()
    margins: Tuple[LimitMargin, ...] = ()
    counters: Dict[str, int] = field(default_factory=dict)
    seed: int = 0
    stamp: float = float("nan")

    @property
    def at_target(self) -> bool:
        """Whether every arm has carried out the proposal `sequence`, its gripper included."""
        return bool(self.arms) and self.sequence > 0 and all(arm.at_target for arm in self.arms)

    @property
    def waiting(self) -> bool:
        """Whether only another proposal is needed for motion to continue."""
        return waits(self.state, self.reasons)

    @property
    def commanded(self) -> Dict[str, Pose]:
        """The pose sent to each arm, by its name."""
        return {arm.name: arm.target for arm in self.arms if arm.target is not None}


@dataclass(frozen=True)
class Acceptance:
    """The answer to one proposal.

    Attributes:
        accepted: Whether the proposal is executed.
        reason: Why it is not; empty if it was accepted.
        at_once: Whether it begins a motion from rest of all arms and grippers, so that the next tick may be brought forward.
    """

    accepted: bool
    reason: str = ""
    at_once: bool = False


@dataclass(frozen=True)
class ArmCommand:
    """What goes to one arm this tick.

    Attributes:
        name: Name of the arm.
        pose: Tool pose in the arm's base frame.
        joint_positions: (dof,) joint solution of that pose, rad.
        gripper: Opening, only when a new command is due.
        publish: Whether anything may be sent.
    """

    name: str
    pose: Pose
    joint_positions: np.ndarray
    gripper: Optional[float]
    publish: bool


@dataclass(frozen=True)
class FilterOutput:
    """The output of one tick.

    Attributes:
        arms: One command for each arm.
        status: What the filter reports about itself.
        status_changed: Whether something in the status changed.
    """

    arms: Tuple[ArmCommand, ...]
    status: SafetyStatus
    status_changed: bool

    def again(self) -> FilterOutput:
        """Returns the output of an early tick: the same poses, no gripper command a second time, no new status."""
        return FilterOutput(tuple(replace(arm, gripper=None) for arm in self.arms), self.status, False)
