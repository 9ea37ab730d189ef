"""Linear layers whose weights take 8 or 4 bits. Each has a written form, which runs everywhere. If torch has an operator
for it that passed one test on this device, the layer uses that operator.

- int8: one scale per output channel, symmetric (as in LLM.int8, Dettmers et al. 2022, without its outliers).
- int4: one scale and one middle for 16 to 128 inputs of a channel; two numbers per byte.
- fp8: e4m3 weights with a scale per channel, and inputs with a scale per row, chosen anew in every product (Micikevicius et
  al. 2022). Emulated: the same roundings, multiplied in float32.
"""
from __future__ import annotations

from typing import Callable, Dict, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import nn

from hybridvla_core.errors import ConfigurationError

#: Most rows for which a CPU's 8-bit operator is faster than the written form (measured, bfloat16).
FEW_ROWS = 16
#: Numbers of inputs that may share an int4 scale; the largest one that divides the width is used.
GROUPS = (128, 64, 32, 16)
#: Largest e4m3 number, and the least maximum that a scale is computed from, for rows of zeros.
E4M3_MAX, LEAST = 448.0, 1e-12
#: Tolerance between an operator and the written form: bfloat16 rounds its sums.
NEAR = 0.02

Product = Callable[[torch.Tensor, torch.Tensor, int, torch.Tensor], torch.Tensor]


class ShrunkLinear(nn.Module):
    """Base of the layers. Their weights cannot be moved or read as numbers of another type.

    Attributes:
        numbers: Number of weights that the layer stands for.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.numbers = layer.in_features * layer.out_features
        self.bias = layer.bias

    @property
    def bytes(self) -> int:
        """Bytes of weights and scales."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps x (..., in) to (..., out)."""
        result = self.product(x.reshape(-1, self.in_features)).reshape(*x.shape[:-1], self.out_features)
        return result if self.bias is None else result + self.bias

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """Maps rows (N, in) to (N, out), without the bias."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> ShrunkLinear:
        raise ConfigurationError("weights in fewer bits stay on the device and in the type that they were made for; load the "
                                 "checkpoint there with the precision that is wanted")


class Int8Linear(ShrunkLinear):
    """8-bit weights, inputs as they are."""

    scale: torch.Tensor
    weight8: torch.Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        weight = layer.weight.detach()
        scale = (weight.float().abs().amax(1).clamp(min=LEAST) / 127).to(weight.dtype)
        self.register_buffer("scale", scale)
        self.register_buffer("weight8", (weight.float() / scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8))
        self._operator = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and agree(
            self._packed, self._written, torch.linspace(-1, 1, 2 * self.in_features).view(2, -1).to(weight.dtype))

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        return self._packed(rows) if self._operator and len(rows) <= FEW_ROWS else self._written(rows)

    def _written(self, rows: torch.Tensor) -> torch.Tensor:
        # A compiler makes one kernel of this, which reads 8 bits; without one, the weight is expanded first.
        return F.linear(rows, self.weight8.to(rows.dtype)) * self.scale

    def _packed(self, rows: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch._weight_int8pack_mm(rows, self.weight8, self.scale)
        return product


class Int4Linear(ShrunkLinear):
    """4-bit weights, inputs as they are. Weight = (number - 8) * scale + middle."""

    #: Device -> (numbers (out, in) int32 to the operator's order, the product), as torch names them.
    operators: Dict[str, Tuple[str, str]] = {"cuda": ("_convert_weight_to_int4pack", "_weight_int4pack_mm")}
    scales: torch.Tensor
    weight4: torch.Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        weight = layer.weight.detach()
        self.group = next((group for group in GROUPS if self.in_features % group == 0), 0)
        if not self.group:
            raise ConfigurationError(f"precision int4 needs layers whose inputs divide by {GROUPS[-1]}, this model has one with "
                                     f"{self.in_features}; use int8")
        parts = weight.float().unflatten(1, (-1, self.group))
        low, high = parts.amin(-1), parts.amax(-1)
        scale = ((high - low).clamp(min=LEAST) / 15).to(weight.dtype)
        middle = (low + scale.float() * 8).to(weight.dtype)
        fours = ((parts - middle.float()[..., None]) / scale.float()[..., None] + 8).round_().clamp_(0, 15).to(torch.uint8)
        #: (groups, out, 2): scale and middle, in the operator's order.
        self.register_buffer("scales", torch.stack([scale, middle], -1).transpose(0, 1).contiguous())
        fours = fours.flatten(1)
        self.register_buffer("weight4", fours[:, ::2] << 4 | fours[:, 1::2])
        self._multiply: Optional[Product] = None
        self._choose_operator(fours)

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        return self._written(rows) if self._multiply is None else self._packed(rows)

    def _written(self, rows: torch.Tensor) -> torch.Tensor:
        fours = torch.stack([self.weight4 >> 4, self.weight4 & 15], -1).flatten(1).unflatten(1, (-1, self.group))
        scale, middle = self.scales.transpose(0, 1)[..., None].unbind(2)
        return F.linear(rows, ((fours.to(rows.dtype) - 8) * scale + middle).flatten(1))

    def _packed(self, rows: torch.Tensor) -> torch.Tensor:
        assert self._multiply is not None, "it has been chosen"
        return self._multiply(rows, self.weight4, self.group, self.scales)

    def _choose_operator(self, fours: torch.Tensor) -> None:
        """Replaces our weights by the operator's copy if that gives the same results."""
        if fours.device.type not in self.operators or self.scales.dtype != torch.bfloat16:
            return
        pack, multiply = (getattr(torch, name, None) for name in self.operators[fours.device.type])
        rows = torch.linspace(-1, 1, 16 * self.in_features, device=fours.device).view(16, -1).to(self.scales.dtype)
        expected = self._written(rows)
        ours, packed = self.weight4, None
        for numbers in (fours[:, ::2] << 4 | fours[:, 1::2], fours.int()):     # its input changed with torch 2.5
            try:
                packed = pack(numbers, 8) if pack is not None else None
                break
            except (RuntimeError, TypeError, ValueError):
                continue
        if packed is None or multiply is None:
            return
        self.weight4, self._multiply = packed, multiply
        if not agree(self._packed, lambda _: expected, rows):
            self.weight4, self._multiply = ours, None


class Fp8Linear(ShrunkLinear):
    """Weights and inputs in e4m3. `emulated`: without an operator, on float32 numbers that were rounded to e4m3."""

    scale: torch.Tensor
    weight8: torch.Tensor
    one: torch.Tensor

    def __init__(self, layer: nn.Linear, emulated: bool) -> None:
        super().__init__(layer)
        weight = layer.weight.detach()
        scale = weight.float().abs().amax(1, keepdim=True).clamp(min=LEAST) / E4M3_MAX
        self.register_buffer("scale", scale.t().contiguous())     # (1, out) float32
        self.register_buffer("weight8", (weight.float() / scale).clamp_(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn))
        self.register_buffer("one", torch.ones((), device=weight.device), persistent=False)
        self.form: Optional[str] = None if emulated else self._choose_form(weight)

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        scale = rows.float().abs().amax(1, keepdim=True).clamp(min=LEAST) / E4M3_MAX
        eights = (rows.float() / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
        return self._multiply(self.form, eights, scale).to(rows.dtype)

    def _multiply(self, form: Optional[str], eights: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Multiplies eights (N, in), e4m3 with scale (N, 1), by the weight."""
        if form is None:
            return eights.float() @ self.weight8.float().t() * scale * self.scale
        scales = (scale, self.scale) if form == "rows" else (self.one, self.one)
        product: torch.Tensor = torch._scaled_mm(eights, self.weight8.t(), scale_a=scales[0], scale_b=scales[1],
                                                 out_dtype=torch.bfloat16)
        return product if form == "rows" else product * scale * self.scale

    def _choose_form(self, weight: torch.Tensor) -> str:
        """Finds out in which form the operator takes scales.

        Returns:
            `rows`: it takes one scale per row; `whole`: the scales are multiplied in afterwards.

        Raises:
            ConfigurationError: The operator works in neither form.
        """
        rows = torch.linspace(-1, 1, 16 * self.in_features, device=weight.device).view(16, -1)
        eights, scale = (rows * E4M3_MAX).to(torch.float8_e4m3fn), torch.full((16, 1), 1 / E4M3_MAX, device=weight.device)
        for form in ("rows", "whole"):
            if agree(lambda _, form=form: self._multiply(form, eights, scale),  # type: ignore[misc]
                     lambda _: self._multiply(None, eights, scale), rows):
                return form
        raise ConfigurationError(f"precision fp8: torch {torch.__version__} cannot multiply 8-bit floats of {self.in_features} "
                                 f"by {self.out_features} on {weight.device}; use precision int8 or full")


def agree(call: Callable[[torch.Tensor], torch.Tensor], expected: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor
          ) -> bool:
    """Tells whether an operator exists, runs, and gives nearly the expected result.

    Internal operators may differ between versions of torch.

    Args:
        call: The operator.
        expected: Computes the expected result.
        rows: Input of both.

    Returns:
        Whether they agree; False also if the operator raises.
    """
    try:
        found, wanted = call(rows).float(), expected(rows).float()
    except (RuntimeError, AttributeError, NotImplementedError, TypeError, ValueError):
        return False
    return bool(((found - wanted).abs() <= NEAR * wanted.abs().max().clamp(min=1e-6)).all())


def shrunk(layer: nn.Linear, precision: str) -> Union[Int8Linear, Int4Linear, Fp8Linear]:
    """Returns the layer in a precision other than `full`."""
    if precision == "int8":
        return Int8Linear(layer)
    if precision == "int4":
        return Int4Linear(layer)
    return Fp8Linear(layer, emulated=precision != "fp8")
