"""What a policy is: everything that node, proposer, evaluation and replay ask of one.

The model (`policy/predictor.py`), scripted policies and recorded ones fit these protocols by having their members; none
of them derives from anything here.
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
        """Digest of its checkpoint; goes into every proposal. Empty for a policy without one."""

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        """Returns one action chunk.

        Args:
            observation: images, instruction and state (A,) in physical units.
            mode: which path acts; None is the policy's own choice.
            seed: of the noise, together with the observation's stamp.

        Raises:
            ObservationError: for a view, state or instruction that cannot be used.
        """


class BatchPolicy(PolicyInterface, Protocol):
    """A policy that also predicts many observations in one pass."""

    def predict_batch(self, observations: Sequence[Observation], mode: Union[str, Mode, None] = None, seed: int = 0
                      ) -> List[Prediction]:
        """Returns one prediction for each observation; their instructions may differ in length."""


class ReadyImage(Protocol):
    """An image that is already resized; stands in for the array in an `Observation`."""

    shape: Tuple[int, ...]


@runtime_checkable
class ReadsInstructions(Protocol):
    """What a policy may offer besides: to say what it makes of an instruction before it predicts by it."""

    def unknown_words(self, instruction: str) -> List[str]:
        """Returns the words that mean nothing to it, in order.

        Raises:
            ObservationError: for an instruction that cannot be used at all.
        """


@runtime_checkable
class PreparesImages(Protocol):
    """What a policy may offer besides: the part of the pre-processing that needs one image alone, done when it arrives."""

    def prepare(self, image: np.ndarray, view: str) -> ReadyImage:
        """Returns an (h, w, 3) uint8 RGB image at the sizes of the vision towers."""

    def prepare_jpeg(self, data: bytes, view: str, encoding: Optional[str] = None) -> ReadyImage:
        """Returns the same of a compressed message's bytes, decoded at a fraction of their size where the codec can.

        Args:
            data: the message's bytes.
            view: which one.
            encoding: the message's format.
        """


@runtime_checkable
class SaysChunk(Protocol):
    """What a policy, or the description of its checkpoint, may say besides: how long its predictions are."""

    @property
    def chunk(self) -> Optional[int]:
        """Most steps K of an action; None where it is not known."""


@runtime_checkable
class HasLink(Protocol):
    """What a policy behind a connection offers besides."""

    def link_problem(self) -> str:
        """Returns why nothing can be asked of it now, empty while it lives; the heartbeat says FAULT with these words."""
