"""What makes observations where nothing is predicted."""
from __future__ import annotations

from typing import Union

from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.errors import DataError
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.transforms.conventions import ActionConvention


class NoPolicy:
    """Stands where the live node has its model: the convention is all that observations need of one."""

    manifest_sha256 = ""

    def __init__(self, config: PolicyConfig) -> None:
        self.convention: ActionConvention = config.convention
        self.cameras = tuple(camera.view for camera in config.cameras)

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        """Raises: nothing is predicted while a data set is made."""
        raise DataError("no prediction is made while a data set is written")
