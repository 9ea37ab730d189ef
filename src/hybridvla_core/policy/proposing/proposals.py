"""From predictions to proposals: one function, shared by node, evaluation and replay, turns deltas into absolute targets."""
from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.contracts import ArmTarget, DeltaBase, Kind, Observation, Pose, Prediction, Proposal
from hybridvla_core.errors import ObservationError
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_core.policy.proposing.pose_history import Held
from hybridvla_core.transforms.conventions import ActionConvention, action_to_targets, state_vector

DELTA_BASES = {"commanded": DeltaBase.COMMANDED, "measured": DeltaBase.MEASURED}


@dataclass(frozen=True)
class Inference:
    """One inference in progress.

    Attributes:
        observation: Observation to predict from.
        instruction_sequence: Sequence number of its instruction.
        stamp: Stamp of the observation, s.
        camera_spread: Newest minus oldest image, s.
        bases: (pose, stamp at which it held) of each arm, in the convention's order.
        epoch: Epoch of the policy's run.
        seed: The filter's seed number under which the observation was made.
    """

    observation: Observation
    instruction_sequence: int
    stamp: float
    camera_spread: float
    bases: Tuple[Tuple[Pose, float], ...]
    epoch: int = 0
    seed: int = 0


class InstructionAnswer(NamedTuple):
    """The answer of `set_instruction`.

    Attributes:
        success: Whether there was anything to set.
        message: The answer in one sentence.
        previous: The previous instruction.
        instruction_sequence: The first valid instruction sequence number.
    """

    success: bool
    message: str
    previous: str
    instruction_sequence: int


def state_input(convention: ActionConvention, measured: Sequence[Held], commanded: Sequence[Optional[Held]]) -> np.ndarray:
    """Computes the state input of an observation from the measured states or from the last commands.

    Args:
        convention: Convention that says which of the two, and where a policy without a command yet starts.
        measured: Measured state of each arm, in the convention's order.
        commanded: Last command of each arm, in the same order; None before an arm's first command.

        Returns:
            (A,) in physical units.

        Raises:
            ObservationError: A gripper's opening is unknown.
    """
    source = measured
    if convention.state_source == "last_command":
        if any(entry is None for entry in commanded) and convention.first_state is not None:
            return np.asarray(convention.first_state, dtype=float)
        source = [there or here for there, here in zip(commanded, measured)]
    openings = [opening if not math.isnan(opening) else measured[arm][1] for arm, (_, opening, _) in enumerate(source)]
    for name, opening in zip(convention.arms, openings):
        if math.isnan(opening):
            raise ObservationError(f"arm {name}: the gripper's opening is unknown; check the gripper's state topic")
    return state_vector(convention, [pose for pose, _, _ in source], openings)


def targets_of(config: PolicyConfig, inference: Inference, prediction: Prediction) -> Tuple[ArmTarget, ...]:
    """Returns K x arms targets, step-major; openings are clipped to [0, 1]."""
    action = np.atleast_2d(prediction.action)
    steps = action_to_targets(config.convention, action, [pose for pose, _ in inference.bases])
    delta_base = DELTA_BASES[config.convention.delta_base]
    targets, bases = [], list(inference.bases)
    for step in steps:
        for arm, (name, frame) in enumerate(zip(config.convention.arms, config.frames)):
            pose, opening = step[arm]
            base, held = bases[arm]
            targets.append(ArmTarget(name=name, frame=frame, base=base, base_stamp=held, target=pose,
                                     delta_base=delta_base, gripper=min(max(opening, 0.0), 1.0)))
            bases[arm] = (pose, held)
    return tuple(targets)


def make_proposal(config: PolicyConfig, policy: PolicyInterface, inference: Inference, prediction: Prediction, epoch: int,
                  sequence: int, observation_age: float) -> Proposal:
    """Makes the proposal of one inference.

    Unless the arm stood still meanwhile (blocking execution), this drops the steps of a chunk whose time was over before the
    proposal could leave: the first step sent is the one due now.

    Args:
        config: Configuration of the policy.
        policy: Policy whose digest goes into the proposal.
        inference: The observation and its bases.
        prediction: Prediction made from the observation.
        epoch: Epoch of the policy's run.
        sequence: Sequence number of the proposal.
        observation_age: Age of the observation at publishing, s.

    Returns:
        The proposal.
    """
    targets = targets_of(config, inference, prediction)
    arms, chunk = len(config.convention.arms), len(targets) // len(config.convention.arms)
    blocking = config.is_keyframe or config.execution_way == "blocking"
    late = 0 if blocking else min(int(observation_age / config.convention.action_period_s), chunk - 1)
    if late:
        targets, chunk = targets[late * arms:], chunk - late
        rows = {name: getattr(prediction, name)[late:] for name in ("action", "diffusion")
                if getattr(prediction, name) is not None and len(getattr(prediction, name)) > late}
        prediction = replace(prediction, **rows)
    return Proposal(stamp=inference.stamp, epoch=epoch, sequence=sequence,
                    instruction_sequence=inference.instruction_sequence, instruction=inference.observation.instruction,
                    valid_for=config.valid_for(chunk), targets=targets, kind=Kind.ACTION,
                    action_period=config.convention.action_period_s, observation_age=observation_age,
                    camera_spread=inference.camera_spread, chunk=chunk, checkpoint_sha256=policy.manifest_sha256,
                    prediction=prediction, stamp_ns=inference.observation.stamp_ns, seed=inference.seed)
