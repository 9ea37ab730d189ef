"""Dialects of the openpi wire: what each key carries, and what its numbers mean (config/remote/*.yaml)."""
from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple, Union

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.configuration import in_range, require
from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.errors import ConfigurationError, WireError
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_core.policy.remote.messages import Request, array_of, prediction_of, reply_of, text_of, whole
from hybridvla_core.transforms.conventions import ActionConvention

ModeLike = Union[str, Mode, None]


class OwnDialect:
    """Our own dialect: `observation/VIEW`, `observation/state`, `prompt`, and what is needed to repeat a prediction."""

    name = "hybridvla"

    def check(self, policy: PolicyInterface) -> None:
        """Raises ConfigurationError if this dialect cannot carry a policy's numbers."""

    def request(self, observation: Observation, mode: ModeLike, seed: int) -> Dict[str, Any]:
        chosen = None if mode is None else (mode if isinstance(mode, Mode) else Mode.named(mode)).name.lower()
        return {**{f"observation/{view}": np.ascontiguousarray(image) for view, image in observation.images.items()},
                "observation/state": np.asarray(observation.state, dtype=np.float64), "prompt": observation.instruction,
                "stamp_ns": int(observation.stamp_ns), "seed": int(seed), "mode": chosen}

    def read_request(self, message: Mapping[str, object], policy: PolicyInterface) -> Request:
        images = {view: array_of(message, f"observation/{view}", np.uint8, 3) for view in policy.cameras}
        mode = message.get("mode")
        stamp, seed = whole(message, "stamp_ns", time.time_ns()), whole(message, "seed", 0)
        try:
            chosen = None if mode is None else Mode.named(str(mode))
        except ConfigurationError as error:
            raise WireError(str(error)) from error
        observation = Observation(images, text_of(message, "prompt"), array_of(message, "observation/state", float, 1), stamp)
        return Request(observation, chosen, seed)

    def reply(self, prediction: Prediction, policy: PolicyInterface, stamp_ns: int) -> Dict[str, Any]:
        return reply_of(prediction, stamp_ns)

    def read_reply(self, message: Mapping[str, object], convention: ActionConvention, stamp_ns: int) -> Prediction:
        if message.get("stamp_ns") != stamp_ns:
            raise WireError("the server answered another observation than the one it was sent (stamp "
                            f"{message.get('stamp_ns')!r} instead of {stamp_ns})")
        return prediction_of(message, convention)


@dataclass(frozen=True)
class PoseDialect:
    """The dialect of LIBERO's clients: one arm moved by normalised end-effector deltas.

    Attributes:
        name: Name of the dialect.
        refused: Why the dialect is not supported at all.
        images: Our view to the dialect's key, in order.
        state: Key of the state.
        prompt: Key of the prompt.
        unit_translation_m: Translation that 1 in an action stands for, m.
        unit_rotation_rad: Rotation that 1 in an action stands for, rad.
        finger_travel_m: Position of an open finger, m.
        convention: Convention of the policy at either end.
    """

    name: str
    refused: str = ""
    images: Dict[str, str] = field(default_factory=dict)
    state: str = "observation/state"
    prompt: str = "prompt"
    unit_translation_m: float = 1.0
    unit_rotation_rad: float = 1.0
    finger_travel_m: float = 0.04
    convention: Optional[ActionConvention] = None

    def __post_init__(self) -> None:
        require(not self.refused, f"dialect {self.name} is not spoken: {self.refused}")
        require(bool(self.images), f"dialect {self.name}: images is empty; name the key of each view")
        convention = self.convention
        if convention is None or len(convention.arms) != 1 or convention.rotation != "delta_euler_xyz":
            raise ConfigurationError(f"dialect {self.name}: convention must be of one arm with rotation delta_euler_xyz")
        for key in ("unit_translation_m", "unit_rotation_rad", "finger_travel_m"):
            in_range(f"dialect {self.name}: {key}", getattr(self, key), 1e-4, 10.0)

    @property
    def meaning(self) -> ActionConvention:
        assert self.convention is not None  # __post_init__
        return self.convention

    @property
    def cameras(self) -> Tuple[str, ...]:
        return tuple(self.images)

    def check(self, policy: PolicyInterface) -> None:
        if policy.convention != self.meaning:
            raise ConfigurationError(f"dialect {self.name} means {self.meaning}, but the checkpoint has {policy.convention}; "
                                     "serve a checkpoint that was trained with the dialect's convention")
        unknown = [view for view in policy.cameras if view not in self.images]
        if unknown:
            raise ConfigurationError(f"dialect {self.name} has no key for the checkpoint's view {', '.join(unknown)}; add it to "
                                     "the dialect's images")

    def request(self, observation: Observation, mode: ModeLike, seed: int) -> Dict[str, Any]:
        state = np.asarray(observation.state, dtype=float)
        turned = Rotation.from_euler("xyz", state[3:6]) * Rotation.from_quat(self.meaning.rotation_reference_xyzw)
        finger = self.meaning.opening(float(state[6])) * self.finger_travel_m
        sent = np.concatenate([state[:3], turned.as_rotvec(), [finger, -finger]]).astype(np.float32)
        return {**{key: np.ascontiguousarray(observation.images[view]) for view, key in self.images.items()},
                self.state: sent, self.prompt: observation.instruction}

    def read_request(self, message: Mapping[str, object], policy: PolicyInterface) -> Request:
        images = {view: array_of(message, self.images[view], np.uint8, 3) for view in policy.cameras}
        sent = array_of(message, self.state, float, 1)
        if sent.shape != (8,):
            raise WireError(f"{self.state} has {sent.size} numbers; dialect {self.name} has 8: position, axis-angle, two fingers")
        reference = Rotation.from_quat(self.meaning.rotation_reference_xyzw)
        euler = (Rotation.from_rotvec(sent[3:6]) * reference.inv()).as_euler("xyz")
        opening = float(np.clip(np.abs(sent[6:]).mean() / self.finger_travel_m, 0.0, 1.0))
        state = np.concatenate([sent[:3], euler, [self.meaning.gripper_value(opening)]])
        return Request(Observation(images, text_of(message, self.prompt), state, time.time_ns()), None, 0)

    def reply(self, prediction: Prediction, policy: PolicyInterface, stamp_ns: int) -> Dict[str, Any]:
        rows = np.atleast_2d(prediction.action)
        turn = Rotation.from_euler("xyz", rows[:, 3:6]).as_rotvec() / self.unit_rotation_rad
        opening = np.array([self.meaning.opening(value) for value in rows[:, 6]])
        actions = np.concatenate([rows[:, :3] / self.unit_translation_m, turn, (1.0 - 2.0 * opening)[:, None]], axis=1)
        return {"actions": actions}

    def read_reply(self, message: Mapping[str, object], convention: ActionConvention, stamp_ns: int) -> Prediction:
        sent = prediction_of(message, convention).action
        euler = Rotation.from_rotvec(sent[:, 3:6] * self.unit_rotation_rad).as_euler("xyz")
        gripper = [convention.gripper_value(min(max((1.0 - value) / 2.0, 0.0), 1.0)) for value in sent[:, 6]]
        action = np.concatenate([sent[:, :3] * self.unit_translation_m, euler, np.array(gripper)[:, None]], axis=1)
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action)


Dialect = Union[OwnDialect, PoseDialect]
