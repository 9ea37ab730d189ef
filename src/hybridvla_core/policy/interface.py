"""The interface of a policy: everything that node, proposer, evaluation and replay ask of one.

The model (`policy/predictor.py`), scripted policies and recorded policies satisfy these protocols by having their members;
none of them derives from a class here.
"""
from __future__ import annotations

from typing import List, Optional, Protocol, Sequence, Tuple, Union, runtime_checkable

import numpy as np

from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.transforms.conventions import ActionConvention


class PolicyInterface(Protocol):
    """One observation in, one prediction out."""

    @property
    def convention(self) -> ActionConvention:
        """What the numbers of its actions and states mean."""

    @property
    def cameras(self) -> Sequence[str]:
        """View names, in the order the policy was trained with."""

    @property
    def manifest_sha256(self) -> str:
        """Digest of its checkpoint, which goes into every proposal. Empty for a policy without a checkpoint."""

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        """Returns one action chunk.

        Args:
            observation: images, instruction and state (A,) in physical units.
            mode: path that acts; None is the policy's own choice.
            seed: seed of the noise, together with the observation's stamp.

        Raises:
            ObservationError: for a view, state or instruction that cannot be used.
        """


class BatchPolicy(PolicyInterface, Protocol):
    """A policy that also predicts many observations in one pass."""

    def predict_batch(self, observations: Sequence[Observation], mode: Union[str, Mode, None] = None, seed: int = 0
                      ) -> List[Prediction]:
        """Returns one prediction for each observation; their instructions may differ in length."""


class ReadyImage(Protocol):
    """An image that is already resized; replaces the array in an `Observation`."""

    shape: Tuple[int, ...]


@runtime_checkable
class ReadsInstructions(Protocol):
    """Optional part of a policy: says how it understands an instruction before it predicts with it."""

    def unknown_words(self, instruction: str) -> List[str]:
        """Returns the words that the policy does not know, in order.

        Raises:
            ObservationError: for an instruction that cannot be used at all.
        """


@runtime_checkable
class PreparesImages(Protocol):
    """Optional part of a policy: does the pre-processing that needs only one image as soon as the image arrives."""

    def prepare(self, image: np.ndarray, view: str) -> ReadyImage:
        """Returns an (h, w, 3) uint8 RGB image resized for the vision towers."""

    def prepare_jpeg(self, data: bytes, view: str, encoding: Optional[str] = None) -> ReadyImage:
        """Returns the same for the bytes of a compressed message, decoded at a fraction of the size if the codec can.

        Args:
            data: the message's bytes.
            view: name of the view.
            encoding: the message's format.
        """


@runtime_checkable
class SaysChunk(Protocol):
    """Optional part of a policy, or of the description of its checkpoint: the length of its predictions."""

    @property
    def chunk(self) -> Optional[int]:
        """Largest number of steps K of an action; None if it is not known."""


@runtime_checkable
class HasLink(Protocol):
    """Additional part of a policy behind a connection."""

    def link_problem(self) -> str:
        """Returns why the policy cannot be asked now; empty while the link is alive. The heartbeat says FAULT with this text."""
