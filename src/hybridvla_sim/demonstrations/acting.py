"""A policy drives, and the expert labels each stop with the right action: states to which only the policy's mistakes lead.

This is DAgger (Ross, Gordon and Bagnell, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online
Learning", 2011): a policy trained on an expert's states alone has not seen where its own small errors take it.
"""
from __future__ import annotations

from typing import Callable, Sequence

import numpy as np

from hybridvla_core.contracts import Observation
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_sim.demonstrations.drive import state_of
from hybridvla_sim.suite import AnyRig


class Actor:
    """A policy that drives in place of the expert.

    Args:
        policy: Policy that predicts keyframes of the rig.
        paths: Paths of the model that act. They take turns by acted episode, so that the states of each one occur.
    """

    def __init__(self, policy: PolicyInterface, paths: Sequence[str] = ("diffusion", "autoregressive")) -> None:
        self.policy, self.paths = policy, tuple(paths)
        self._seed = self._looks = 0
        self._path = self.paths[0]

    def begin(self, seed: int, turn: int) -> None:
        """Begins an episode. Its seed also draws the noise, and its turn selects the path that acts."""
        self._seed, self._looks = seed, 0
        self._path = self.paths[turn % len(self.paths)]

    def __call__(self, rig: AnyRig, text: str) -> np.ndarray:
        """Returns the next action (A,) of the policy, physical units.

        Raises:
            HybridVLAError: The policy cannot predict.
        """
        self._looks += 1
        images = {view: rig.render(view) for view in self.policy.cameras}
        observation = Observation(images, text, state_of(rig, self.policy.convention), self._looks)
        action: np.ndarray = np.array(self.policy.predict(observation, self._path, seed=self._seed).action[0])
        return action


ActorFactory = Callable[[], Actor]
