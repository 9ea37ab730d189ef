"""Data that policy, filter and robot exchange, as plain dataclasses (numpy only).

They mirror the ROS messages field by field, so nodes only convert. Ages and validities are durations in seconds, because
the clocks of two computers need not agree; stamps are seconds of the sender's clock.
"""
from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Dict, Mapping, Optional, Tuple

import numpy as np

from hybridvla_core.errors import ConfigurationError


class Kind(enum.IntEnum):
    """Kind of request that a proposal makes.

    Attributes:
        ACTION: Go to the targets.
        HOLD: Slow down and hold; the proposal has no targets.
    """

    ACTION = 0
    HOLD = 1


class Mode(enum.IntEnum):
    """Path of the model that gives the action.

    Attributes:
        ENSEMBLE: Both paths, averaged where the tokens are confident; diffusion alone where they are not.
        DIFFUSION: Diffusion alone.
        AUTOREGRESSIVE: The tokens alone.
    """

    ENSEMBLE = 0
    DIFFUSION = 1
    AUTOREGRESSIVE = 2

    @classmethod
    def named(cls, text: str) -> Mode:
        """Returns the mode named `text` in configuration files and options.

        Raises:
            ConfigurationError: `text` is not the name of a mode.
        """
        if text not in cls.names():
            raise ConfigurationError(f"mode is {text!r}; use one of {', '.join(cls.names())}")
        return cls[text.upper()]

    @classmethod
    def names(cls) -> Tuple[str, ...]:
        """Returns the names of all modes."""
        return tuple(mode.name.lower() for mode in cls)


class DeltaBase(enum.IntEnum):
    """Pose that an action is added to.

    Attributes:
        COMMANDED: The last commanded pose.
        MEASURED: The pose measured at the observation's stamp.
    """

    COMMANDED = 0
    MEASURED = 1


class PolicyState(enum.IntEnum):
    """State of the policy's loop.

    Attributes:
        WAITING: The loop waits for an observation, or until a prediction is due.
        INFERRING: The model is predicting.
        FAULT: The policy cannot predict; the heartbeat's message says why, and the filter holds the arms.
    """

    WAITING = 0
    INFERRING = 1
    FAULT = 2


class GripperState(enum.IntEnum):
    """Progress of a gripper's last command, as its driver reports it.

    Attributes:
        UNKNOWN: The driver does not say, or nothing has been commanded yet.
        MOVING: The gripper is still moving.
        DONE: The command has finished: the gripper reached the width or holds something.
        FAILED: The command has failed.
    """

    UNKNOWN = 0
    MOVING = 1
    DONE = 2
    FAILED = 3


@dataclass(frozen=True)
class Pose:
    """The tool centre point in an arm's base frame.

    Attributes:
        position: (3,) m.
        quaternion: (4,) unit quaternion, xyzw.
    """

    position: np.ndarray
    quaternion: np.ndarray


@dataclass(frozen=True)
class Observation:
    """One moment as the model sees it.

    Attributes:
        images: View name -> (height, width, 3) uint8 RGB.
        instruction: Task in a person's words.
        state: (A,) physical units, in the checkpoint's state convention.
        stamp_ns: Stamp of the oldest image used, ns; together with the seed it determines the noise.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    state: np.ndarray
    stamp_ns: int


@dataclass(frozen=True)
class Prediction:
    """The model's output for one observation; K = chunk, A = action dimensions (7 or 14).

    Actions are not normalised: m, rad, gripper.

    Attributes:
        action: (K, A) action to execute.
        mode: Path that gives the action.
        fused: Whether the two paths were averaged.
        diffusion: (K, A) action of the diffusion path; None if that path did not run.
        autoregressive: (1, A) action of the autoregressive path; None if that path did not run.
        ar_complete: False if decoding ended early because the gate could no longer open. The rest of `autoregressive` and
            `token_confidence` is then NaN, and so is the disagreement; `mean_confidence` is the highest value still possible.
        token_confidence: (A,) confidence of each token, in [0, 1].
        mean_confidence: Mean confidence over the tokens.
        path_distance: Distance between the actions of the two paths, m, largest over the arms; NaN with one path.
        path_angle: Angle between the two on SO(3), rad, largest over the arms; NaN with one path.
        noise_seed: Seed that, together with the stamp, determines the noise.
        stage_ms: Time of each stage, ms.
        passes: Decoder passes after the last denoising step.
        noise_samples: Number of noise samples denoised side by side.
        spread_distance: Spread of their actions, m; NaN with one sample.
        spread_angle: Angular spread of their actions, rad; NaN with one sample.
    """

    action: np.ndarray
    mode: Mode
    fused: bool
    diffusion: Optional[np.ndarray] = None
    autoregressive: Optional[np.ndarray] = None
    ar_complete: bool = True
    token_confidence: Optional[np.ndarray] = None
    mean_confidence: float = float("nan")
    path_distance: float = float("nan")
    path_angle: float = float("nan")
    noise_seed: int = 0
    stage_ms: Dict[str, float] = field(default_factory=dict)
    passes: int = 0
    noise_samples: int = 1
    spread_distance: float = float("nan")
    spread_angle: float = float("nan")


@dataclass(frozen=True)
class ArmTarget:
    """One arm's absolute target for one step of a chunk.

    Attributes:
        name: Name of the arm.
        frame: The arm's base frame.
        base: Pose that the action is relative to.
        base_stamp: Time at which `base` held, s.
        target: Pose that the tool should reach.
        delta_base: Which pose `base` is.
        gripper: 0 closed to 1 open.
    """

    name: str
    frame: str
    base: Pose
    base_stamp: float
    target: Pose
    delta_base: DeltaBase
    gripper: float


@dataclass(frozen=True)
class Proposal:
    """Targets that the policy proposes, why, and from which moment (`hybridvla/ActionProposal`).

    Attributes:
        stamp: Stamp of the observation, s.
        epoch: Number of the policy's run.
        sequence: Number of the proposal within the epoch; grows by one with each.
        instruction_sequence: Number of the instruction that the policy follows.
        instruction: Text of that instruction.
        valid_for: How long the proposal may be executed, s from its receipt.
        targets: K x arms targets, step-major.
        kind: Action or hold.
        action_period: Duration of a step, s; 0 for keyframes.
        observation_age: Age of the observation when the proposal was made, s.
        camera_spread: Time between the observation's oldest and newest image, s.
        chunk: Steps of the chunk (K).
        checkpoint_sha256: Sha256 of the checkpoint's manifest.
        prediction: Prediction that the proposal was made from.
        stamp_ns: The observation's stamp in ns, which together with the noise seed reproduces the noise; 0 without one.
        seed: The filter's seed (`SafetyStatus.seed`) when the observation was made; 0 if the sender does not say.
    """

    stamp: float
    epoch: int
    sequence: int
    instruction_sequence: int
    instruction: str
    valid_for: float
    targets: Tuple[ArmTarget, ...]
    kind: Kind = Kind.ACTION
    action_period: float = 0.0
    observation_age: float = 0.0
    camera_spread: float = 0.0
    chunk: int = 1
    checkpoint_sha256: str = ""
    prediction: Optional[Prediction] = None
    stamp_ns: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Heartbeat:
    """Sign of life driven by the inference loop's own progress (`hybridvla/PolicyHeartbeat`).

    Attributes:
        epoch: Number of the policy's run.
        last_sequence: Sequence number of its last proposal.
        instruction_sequence: Number of the instruction that the policy follows.
        state: State of the loop.
        in_state: Time spent in that state, s.
        message: One sentence.
        ready: Whether the policy is loaded and warm.
    """

    epoch: int
    last_sequence: int
    instruction_sequence: int
    state: PolicyState
    in_state: float = 0.0
    message: str = ""
    ready: bool = True


@dataclass(frozen=True)
class ArmState:
    """State that a robot adapter read from one arm's driver.

    Attributes:
        name: Name of the arm.
        joint_names: Joint names in the driver's order.
        joint_positions: (n,) rad, in that order.
        joint_velocities: (n,) rad/s; None if the driver does not report them.
        pose: The driver's own tool pose; None if the driver does not report it.
        gripper: Measured opening, 0 closed to 1 open; NaN if unknown.
        gripper_state: Gripper state as the driver reports it.
        robot_mode: The driver's own value.
        ready: The adapter's reading of that mode: False in reflex, user stop, guiding, ...
        message: Why the arm is not ready.
        stamp: Stamp by the driver's clock, s; NaN if its message carries none. A stamp of 0 is a fault, and reports with an
            unchanged stamp are not new.
        controller: Controller that takes our commands, and how (its name, its stiffness), in the adapter's words: a change stops
            the arms.
        controller_ready: False while the controller is not running.
    """

    name: str
    joint_names: Tuple[str, ...]
    joint_positions: np.ndarray
    joint_velocities: Optional[np.ndarray] = None
    pose: Optional[Pose] = None
    gripper: float = float("nan")
    gripper_state: GripperState = GripperState.UNKNOWN
    robot_mode: int = 0
    ready: bool = True
    message: str = ""
    stamp: float = float("nan")
    controller: str = ""
    controller_ready: bool = True
