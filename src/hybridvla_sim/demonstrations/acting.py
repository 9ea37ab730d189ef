"""A policy drives, and the expert says at each stop what it should have done: states that only its own mistakes lead to.

This is DAgger (Ross, Gordon and Bagnell, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online
Learning", 2011): a policy that is trained on an expert's states alone has not seen where its small errors take it.
"""
from __future__ import annotations

from typing import Callable, Sequence

import numpy as np

from hybridvla_core.contracts import Observation
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_sim.demonstrations.drive import state_of
from hybridvla_sim.suite import AnyRig


class Actor:
    """A policy in the place of the expert that drives.

    Args:
        policy: Predicts keyframes of the rig.
        paths: Of the model that act, in turn by acted episode, so that the states of each are met.
    """

    def __init__(self, policy: PolicyInterface, paths: Sequence[str] = ("diffusion", "autoregressive")) -> None:
        self.policy, self.paths = policy, tuple(paths)
        self._seed = self._looks = 0
        self._path = self.paths[0]

    def begin(self, seed: int, turn: int) -> None:
        """Begins an episode; its seed draws the noise, too, and its turn names the path that acts."""
        self._seed, self._looks = seed, 0
        self._path = self.paths[turn % len(self.paths)]

    def __call__(self, rig: AnyRig, text: str) -> np.ndarray:
        """Returns the next action (A,) of the policy, physical units.

        Raises:
            HybridVLAError: It cannot predict.
        """
        self._looks += 1
        images = {view: rig.render(view) for view in self.policy.cameras}
        observation = Observation(images, text, state_of(rig, self.policy.convention), self._looks)
        action: np.ndarray = np.array(self.policy.predict(observation, self._path, seed=self._seed).action[0])
        return action


ActorFactory = Callable[[], Actor]
