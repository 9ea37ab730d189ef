"""Checks that checkpoint, policy configuration, robot configuration and instruction mean the same things."""
from __future__ import annotations

from typing import List, Optional, Protocol, Sequence, Tuple

from hybridvla_core.contracts import Mode
from hybridvla_core.errors import ConfigurationError, ObservationError, few
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.interface import PolicyInterface, PreparesImages, ReadsInstructions, SaysChunk
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.transforms.conventions import ActionConvention


class Trained(Protocol):
    """What a policy, or the description of its checkpoint, says about itself."""

    @property
    def convention(self) -> ActionConvention:
        """What the numbers of its actions and states mean."""

    @property
    def cameras(self) -> Sequence[str]:
        """View names, in the order of training."""


def check_fit(policy: Trained, config: PolicyConfig, robot: RobotConfig) -> None:
    """Refuses a combination in which a number would change its meaning between the model and the robot.

    Args:
        policy: the policy that will predict.
        config: the configuration of its node.
        robot: the robot that will move.

    Raises:
        ConfigurationError: one sentence for each difference.
    """
    problems = misfits(policy, config, robot)
    if problems:
        raise ConfigurationError(" ".join(f"{problem}." for problem in problems))


def image_preparer(policy: PolicyInterface, config: PolicyConfig) -> Optional[PreparesImages]:
    """Returns the policy as what resizes images when they arrive; None if the configuration does not ask for it.

    Raises:
        ConfigurationError: The configuration asks for it, and this policy cannot do it.
    """
    if not (config.prepare_on_arrival or config.reduced_jpeg):
        return None
    if isinstance(policy, PreparesImages):
        return policy
    raise ConfigurationError(f"{type(policy).__name__} cannot prepare images when they arrive; leave prepare_on_arrival and "
                             "reduced_jpeg out of the policy's configuration")


def misfits(policy: Trained, config: PolicyConfig, robot: RobotConfig) -> List[str]:
    """Returns the differences, one sentence each without its full stop; empty if everything fits."""
    chunk = policy.chunk if isinstance(policy, SaysChunk) else None
    tokens_alone = config.inference_mode == Mode.AUTOREGRESSIVE       # tokens describe one step
    return (_cameras(policy, config) + _convention(policy.convention, config)
            + _robot(config, robot, 1 if tokens_alone else chunk or 1))


def judged_instruction(policy: PolicyInterface, text: str) -> Tuple[str, str]:
    """Returns why an instruction cannot be used, and a remark on one that can; both are empty for a plain instruction."""
    if not text:
        return "the instruction is empty; say what to do", ""
    if not isinstance(policy, ReadsInstructions):
        return "", ""
    try:
        words = policy.unknown_words(text)
    except ObservationError as error:
        return str(error), ""
    return "", f"; the model does not know {few(words)}: say it in other words" if words else ""


def _cameras(policy: Trained, config: PolicyConfig) -> List[str]:
    wanted, offered = list(policy.cameras), [camera.view for camera in config.cameras]
    if wanted == offered:
        return []
    return [f"The checkpoint was trained with the cameras {wanted} in this order, but the configuration of the policy "
            f"has {offered}; list the same views in the same order"]


def _convention(trained: ActionConvention, config: PolicyConfig) -> List[str]:
    return [f"The checkpoint has {name} {_show(getattr(trained, name))}, but the configuration of the policy has "
            f"{_show(getattr(config.convention, name))}; use the checkpoint's"
            for name in trained.differences(config.convention)]


def _robot(config: PolicyConfig, robot: RobotConfig, chunk: int) -> List[str]:
    arms = {arm.name: arm for arm in robot.arms}
    problems = []
    if set(arms) != set(config.convention.arms):
        problems.append(f"The policy moves the arms {sorted(config.convention.arms)}, but robot {robot.name} has "
                        f"{sorted(arms)}; choose a robot configuration with the same arms")
    for name, frame in zip(config.convention.arms, config.frames):
        if name in arms and arms[name].base_frame != frame:
            problems.append(f"The policy's targets for arm {name} are in frame {frame}, but robot {robot.name} expects "
                            f"{arms[name].base_frame}; name the same frame in both")
    if chunk > robot.proposals.max_chunk:
        problems.append(f"The checkpoint predicts {chunk} steps at once, but robot {robot.name} accepts at most "
                        f"{robot.proposals.max_chunk}; raise max_chunk of its proposals, or use a checkpoint of fewer steps")
    longest = config.valid_for(chunk)
    if longest > robot.proposals.max_valid_for_s:
        cure = "lower keyframe_timeout_s" if config.is_keyframe else (
            "raise max_valid_for_s of its proposals, or use a checkpoint with a shorter action period or chunk")
        problems.append(f"A proposal is valid for {longest:g} s, but robot {robot.name} accepts at most "
                        f"{robot.proposals.max_valid_for_s:g} s; {cure}")
    return problems


def _show(value: object) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
