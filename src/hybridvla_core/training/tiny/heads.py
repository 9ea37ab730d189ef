"""Auxiliary heads: they shape the features during training and are not part of a checkpoint."""
from __future__ import annotations

from typing import Dict

import torch
import torch.nn.functional as F
from torch import nn

from hybridvla_core.training.tiny.targets import OBJECTS


class AuxiliaryHeads(nn.Module):
    """Linear read-outs of tower features (width) and of hidden states (hidden)."""

    def __init__(self, width: int, hidden: int, action: int, phases: int) -> None:
        super().__init__()
        self.patch_class = nn.Linear(width, OBJECTS + 1)
        self.patch_place = nn.Linear(width, 5)
        self.block = nn.Linear(hidden, 5)
        self.pad = nn.Linear(hidden, 2)
        self.action = nn.Linear(hidden, action)
        self.phase = nn.Linear(hidden, phases)

    def tower_loss(self, features: torch.Tensor, targets: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """features: (N, P, width). Class of every patch; position and turn where an object is shown."""
        features = features.float()
        classes = targets["class"]
        weight = torch.ones(OBJECTS + 1)
        weight[0] = 0.3
        losses = {"class": F.cross_entropy(self.patch_class(features).flatten(0, 1), classes.flatten(), weight)}
        place = self.patch_place(features)
        shown = (classes > 0).float()[..., None]
        is_block = ((classes > 0) & (classes <= 4)).float()[..., None]
        position = (place[..., :3] - targets["position"]).abs()
        losses["position"] = (position * shown).sum() / (3 * shown.sum().clamp(min=1))
        turn = (place[..., 3:] - targets["turn"]).abs()
        losses["turn"] = (turn * is_block).sum() / (2 * is_block.sum().clamp(min=1))
        return losses

    def grounding_loss(self, block: torch.Tensor, pad: torch.Tensor, targets: Dict[str, torch.Tensor]
                       ) -> Dict[str, torch.Tensor]:
        """Hidden states (N, L, H) of the words `block` and `pad`: where the named ones are."""
        found = self.block(block.float())
        return {"block": F.smooth_l1_loss(found[..., :3], targets["block"][..., :3], beta=0.05),
                "turn": F.smooth_l1_loss(found[..., 3:], targets["block"][..., 3:], beta=0.2),
                "pad": F.smooth_l1_loss(self.pad(pad.float()), targets["pad"], beta=0.05)}

    def state_loss(self, state: torch.Tensor, action: torch.Tensor, phase: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Hidden state (N, L, H) of the state token: the normalised action (N, L, A) and the expert's phase (N, L)."""
        state = state.float()
        return {"action": F.smooth_l1_loss(self.action(state), action, beta=0.05),
                "phase": F.cross_entropy(self.phase(state).flatten(0, 1), phase.flatten())}
