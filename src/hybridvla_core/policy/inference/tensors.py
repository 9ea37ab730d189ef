"""The inputs of a prediction, its result, and what its passes hand on."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

import numpy as np
import torch

from hybridvla_core.policy.inference.drafts import Examined


@dataclass(frozen=True)
class PredictionInputs:
    """The inputs of a prediction.

    Attributes:
        pixels: Tower kind -> (B, V, 3, S, S).
        text: (B, T) ids from after BOS to before the state, padded at the end where `lengths` says so.
        state: (B, A) normalised state.
        noise: (B, S, K, A) noise.
        lengths: (B,) lengths of the whole prefix if they differ from T's, else None.
        condition: x (B, K, A) and timestep (B,) for `noise` and `released`, else None.
    """

    pixels: Dict[str, torch.Tensor]
    text: torch.Tensor
    state: torch.Tensor
    noise: torch.Tensor
    lengths: Optional[torch.Tensor] = None
    condition: Optional[Tuple[torch.Tensor, torch.Tensor]] = None


@dataclass
class PredictionResult:
    """The result of a prediction, on the host.

    Attributes:
        denoised: (B, S, K, A) denoised actions, float32, or None.
        ids: (B, A) token ids or None.
        confidence: (B, A) confidence of the ids or None.
        exact: (B,) number of ids that count.
        passes: (B,) number of passes after the last denoising step (without one: after the prefix).
    """

    denoised: Optional[np.ndarray] = None
    ids: Optional[np.ndarray] = None
    confidence: Optional[np.ndarray] = None
    exact: Optional[np.ndarray] = None
    passes: Optional[np.ndarray] = None


@dataclass
class TokenBranch:
    """The decoding rows in progress.

    Attributes:
        x: (B, K, A) actions on which the rows are conditioned.
        time: (B, H) embedding of the timestep of x.
        examined: The draft.
    """

    x: torch.Tensor
    time: torch.Tensor
    examined: Examined
