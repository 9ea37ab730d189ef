"""What travels between policy, filter and robot, as plain data (numpy only).

These mirror the ROS messages field by field, so that nodes only convert. Ages and validities are durations in seconds,
because two computers' clocks need not agree; stamps are seconds of the sender's clock.
"""
from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Dict, Mapping, Optional, Tuple

import numpy as np

from hybridvla_core.errors import ConfigurationError


class Kind(enum.IntEnum):
    """What a proposal asks for.

    Attributes:
        ACTION: Go to the targets.
        HOLD: Slow down and hold; it has no targets.
    """

    ACTION = 0
    HOLD = 1


class Mode(enum.IntEnum):
    """Which of the model's paths gives the action.

    Attributes:
        ENSEMBLE: Both, averaged where the tokens are confident; diffusion alone where they are not.
        DIFFUSION: Diffusion alone.
        AUTOREGRESSIVE: The tokens alone.
    """

    ENSEMBLE = 0
    DIFFUSION = 1
    AUTOREGRESSIVE = 2

    @classmethod
    def named(cls, text: str) -> Mode:
        """Returns the mode that configuration files and options call `text`.

        Raises:
            ConfigurationError: for another word.
        """
        if text not in cls.names():
            raise ConfigurationError(f"mode is {text!r}; use one of {', '.join(cls.names())}")
        return cls[text.upper()]

    @classmethod
    def names(cls) -> Tuple[str, ...]:
        """Returns the words of all modes."""
        return tuple(mode.name.lower() for mode in cls)


class DeltaBase(enum.IntEnum):
    """Which pose an action is added to.

    Attributes:
        COMMANDED: The last one commanded.
        MEASURED: The measured one at the observation's stamp.
    """

    COMMANDED = 0
    MEASURED = 1


class PolicyState(enum.IntEnum):
    """What the policy's loop does.

    Attributes:
        WAITING: It waits for an observation, or until a prediction is due.
        INFERRING: The model predicts.
        FAULT: It cannot predict; the heartbeat's message says why, and the filter holds the arms.
    """

    WAITING = 0
    INFERRING = 1
    FAULT = 2


class GripperState(enum.IntEnum):
    """What a gripper makes of its last command, as its driver reports it.

    Attributes:
        UNKNOWN: The driver does not say, or nothing was commanded yet.
        MOVING: It is still under way.
        DONE: It has finished, by reaching the width or by holding something.
        FAILED: It has given up.
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
        instruction: What to do, as a person says it.
        state: (A,) physical units, in the checkpoint's state convention.
        stamp_ns: Of the oldest image used, ns; with the seed it determines the noise.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    state: np.ndarray
    stamp_ns: int


@dataclass(frozen=True)
class Prediction:
    """What the model made of one observation; K = chunk, A = action dimensions (7 or 14).

    Actions are not normalised: m, rad, gripper.

    Attributes:
        action: (K, A) what is to be done.
        mode: Which path acts.
        fused: The two paths were averaged.
        diffusion: (K, A); None where that path did not run.
        autoregressive: (1, A); None where that path did not run.
        ar_complete: False where decoding ended early because the gate could no longer open: the rest of `autoregressive` and
            `token_confidence` is NaN, and so is the disagreement; `mean_confidence` is then the most it can still be.
        token_confidence: (A,) in [0, 1].
        mean_confidence: Over the tokens.
        path_distance: Disagreement of the two paths, m, largest over the arms; NaN with one path.
        path_angle: The same on SO(3), rad.
        noise_seed: With the stamp it determines the noise.
        stage_ms: Time of each stage, ms.
        passes: Of the decoder after the last denoising step.
        noise_samples: Noises denoised side by side.
        spread_distance: How far their actions scatter, m; NaN with one.
        spread_angle: The same, rad.
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
        name: Of the arm.
        frame: The arm's base frame.
        base: The pose that the action is relative to.
        base_stamp: When it held, s.
        target: Where the tool should go.
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
    """What the policy wants, why, and from which moment (`hybridvla/ActionProposal`).

    Attributes:
        stamp: Of the observation, s.
        epoch: One run of the policy.
        sequence: Grows by one with each proposal of it.
        instruction_sequence: Which instruction it follows.
        instruction: Its text.
        valid_for: How long it may be executed, s from its receipt.
        targets: Step-major, K x arms.
        kind: Action or hold.
        action_period: Time of a step, s; 0 for keyframes.
        observation_age: Of the observation when this was made, s.
        camera_spread: Between its oldest and newest image, s.
        chunk: K.
        checkpoint_sha256: Of the checkpoint's manifest.
        prediction: What it was made of.
        stamp_ns: The observation's stamp to the nanosecond, which with the noise seed repeats the noise; 0 without one.
        seed: The filter's (`SafetyStatus.seed`) under which the observation was made; 0 where the sender does not say.
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
    """Driven by the inference loop's own progress (`hybridvla/PolicyHeartbeat`).

    Attributes:
        epoch: One run of the policy.
        last_sequence: Of its last proposal.
        instruction_sequence: Which instruction it follows.
        state: What the loop does.
        in_state: Since when, s.
        message: One sentence.
        ready: The policy is loaded and warm.
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
    """What a robot adapter read from one arm's driver.

    Attributes:
        name: Of the arm.
        joint_names: In the driver's order.
        joint_positions: (n,) rad, in that order.
        joint_velocities: (n,) rad/s; None where the driver does not say.
        pose: The driver's own tool pose; None where it does not say.
        gripper: Measured opening, 0 closed to 1 open; NaN if unknown.
        gripper_state: As the driver reports it.
        robot_mode: The driver's own value.
        ready: The adapter's reading of it: False in reflex, user stop, guiding, ...
        message: Why the arm is not ready.
        stamp: Of the driver's clock, s; NaN where its message carries none. 0 is a fault, and reports whose stamp stands still
            are not new.
        controller: Who takes our commands and how (its name, its stiffness), in the adapter's words: a change stops the arms.
        controller_ready: False while it does not run.
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
