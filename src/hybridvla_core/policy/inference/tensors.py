"""What goes into a prediction, what comes out, and what its passes hand on."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

import numpy as np
import torch

from hybridvla_core.policy.inference.drafts import Examined


@dataclass(frozen=True)
class PredictionInputs:
    """What goes into a prediction.

    Attributes:
        pixels: Tower kind -> (B, V, 3, S, S).
        text: (B, T) ids from after BOS to before the state, padded at the end where `lengths` says so.
        state: (B, A) normalised.
        noise: (B, S, K, A).
        lengths: (B,) of the whole prefix, where they differ from T's, else None.
        condition: x (B, K, A) and timestep (B,) of `noise` and `released`, else None.
    """

    pixels: Dict[str, torch.Tensor]
    text: torch.Tensor
    state: torch.Tensor
    noise: torch.Tensor
    lengths: Optional[torch.Tensor] = None
    condition: Optional[Tuple[torch.Tensor, torch.Tensor]] = None


@dataclass
class PredictionResult:
    """What comes out, on the host.

    Attributes:
        denoised: (B, S, K, A) float32 or None.
        ids: (B, A) or None.
        confidence: (B, A) or None.
        exact: (B,) how many of the ids count.
        passes: (B,) after the last denoising step (without one: after the prefix).
    """

    denoised: Optional[np.ndarray] = None
    ids: Optional[np.ndarray] = None
    confidence: Optional[np.ndarray] = None
    exact: Optional[np.ndarray] = None
    passes: Optional[np.ndarray] = None


@dataclass
class TokenBranch:
    """The decoding rows under way.

    Attributes:
        x: (B, K, A) that they are conditioned on.
        time: (B, H) embedding of its timestep.
        examined: The draft.
    """

    x: torch.Tensor
    time: torch.Tensor
    examined: Examined
