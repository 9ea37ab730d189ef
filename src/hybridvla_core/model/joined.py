"""Joining of linear layers side by side into one, for inference."""
from __future__ import annotations

from typing import Callable, Sequence

import torch
from torch import nn

from hybridvla_core.model.few_rows import linear


def join(layers: Sequence[nn.Linear]) -> nn.Linear:
    """Joins the layers side by side into one; their parameters become views of its weight and bias."""
    outputs = [layer.out_features for layer in layers]
    whole = nn.Linear(layers[0].in_features, sum(outputs), bias=layers[0].bias is not None, device="meta")
    for name in ("weight", "bias") if layers[0].bias is not None else ("weight",):
        joined = torch.cat([getattr(layer, name).detach() for layer in layers])
        setattr(whole, name, nn.Parameter(joined, requires_grad=False))
        for layer, part in zip(layers, torch.split(joined, outputs)):
            getattr(layer, name).data = part
    return whole


class Joinable(nn.Module):
    """Module with linear layers that can be joined for inference (`joined`: their names).

    The joined layer is not a submodule, so parameter names stay. Moving the module to another device or type takes the joined
    layer apart again, and with gradients enabled the parts are used.
    """

    joined: Sequence[str] = ()

    def fuse(self) -> None:
        object.__setattr__(self, "whole", join([getattr(self, name) for name in self.joined]))

    def replace_joined(self, make: Callable[[nn.Linear], nn.Module]) -> None:
        """Replaces the joined layers by another one permanently: the parts and their weights are gone."""
        whole = self.__dict__.pop("whole")
        for name in self.joined:
            delattr(self, name)
        self.whole = make(whole)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Joinable:
        if "whole" in self.__dict__:
            object.__setattr__(self, "whole", None)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the layers' outputs side by side."""
        whole = getattr(self, "whole", None)
        if whole is not None and (not torch.is_grad_enabled() or "whole" in self._modules):
            return linear(whole, x)
        return torch.cat([getattr(self, name)(x) for name in self.joined], dim=-1)
