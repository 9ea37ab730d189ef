"""The effect of bfloat16 on recorded observations: reported, not judged."""
from __future__ import annotations

import copy
from typing import Any, Dict, Mapping

import numpy as np
import torch

from hybridvla_core.evaluation.parity.table import Archive, Table
from hybridvla_core.evaluation.precision import action_difference, sentence
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.transforms.normalise import Scale


class Bfloat16Report:
    """Compares our model in bfloat16 with the recorded float32 results; the DDIM state stays float32 in both."""

    def __init__(self, model: HybridVLA) -> None:
        self.engine = PlainDecoding(copy.deepcopy(model).to(torch.bfloat16))

    def add(self, archive: Archive, pixels: Mapping[str, torch.Tensor], text: torch.Tensor, state: torch.Tensor,
            steps: int, scale: Scale, table: Table) -> None:
        """Adds one case with the recorded noise, timestep and prompt. Must be called under `torch.inference_mode`."""
        engine, grippers = self.engine, tuple(range(6, state.shape[-1], 7))
        prefix = engine.prefix(engine.encode(dict(pixels)), text, state)
        sample = engine.denoise(prefix, torch.from_numpy(archive["noise_diff"][0])[None], steps)
        decoded = engine.decode(prefix, torch.from_numpy(archive["noise_ar"][0])[None], torch.from_numpy(archive["t_ar"]))
        tokens = archive["ar/tokens"]
        result: Dict[str, Any] = {
            "diffusion": action_difference(scale.unnormalise(sample[0].numpy(), grippers), archive["diff/actions"]),
            "autoregressive": action_difference(scale.unnormalise(np.asarray(decoded.values[0]), grippers),
                                                archive["ar/actions"]),
            "tokens_equal": int((decoded.ids[0].numpy() == tokens).sum()), "tokens": len(tokens)}
        name = f"bfloat16 {archive.path.stem}"
        table.reports[name] = result
        table.notes += [sentence(f"{name}, diffusion", result["diffusion"]),
                        f"{sentence(f'{name}, autoregressive', result['autoregressive'])}; {result['tokens_equal']} of "
                        f"{len(tokens)} tokens equal"]
