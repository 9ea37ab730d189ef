"""A stand-in policy for making observations where nothing is predicted."""
from __future__ import annotations

from typing import Union

from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.errors import DataError
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.transforms.conventions import ActionConvention


class NoPolicy:
    """Takes the place of the live node's model: observations need only its convention."""

    manifest_sha256 = ""

    def __init__(self, config: PolicyConfig) -> None:
        self.convention: ActionConvention = config.convention
        self.cameras = tuple(camera.view for camera in config.cameras)

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        """Raises an error: nothing is predicted while a data set is made."""
        raise DataError("no prediction is made while a data set is written")
