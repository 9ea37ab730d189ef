"""The modes that are timed side by side, each as one call that reports the end of each stage."""
from __future__ import annotations

from typing import Callable, Dict, List, Optional, Sequence

import numpy as np
import torch

from hybridvla_core.benchmark.subject import Subject
from hybridvla_core.model.layers import Rotary
from hybridvla_core.model.sequence import denoising_rows, embed_state_row, prefix_rows
from hybridvla_core.report.statistics import quantiles

Lap = Callable[[str], None]


class Passes:
    """Pass counts drawn from a measured distribution: {"1": how often, "2": ...}. Every round draws anew; the same seed gives the
    same counts."""

    def __init__(self, counts: Dict[str, int], seed: int = 0) -> None:
        self.values = np.array([int(key) for key in counts])
        self.weights = np.array([counts[key] for key in counts], dtype=float) / sum(counts.values())
        self._rng = np.random.default_rng(seed)

    @property
    def mean(self) -> float:
        return float((self.values * self.weights).sum())

    def rounds(self, count: int) -> List[int]:
        """Returns `count` shuffled numbers whose frequencies match the distribution as nearly as whole numbers allow."""
        edges = np.round(np.cumsum(self.weights) * count).astype(int)
        repeated = np.repeat(self.values, np.diff(np.concatenate([[0], edges])))
        shuffled: List[int] = self._rng.permutation(repeated).tolist()
        return shuffled


class Modes:
    """Modes of inference. diffusion: that path alone. full: both paths, in few passes. full_plain: both paths, one pass per token
    (greedy). autoregressive: tokens alone. diffusion_no_cache: the whole sequence in every denoising step, on the same weights.
    All but full_plain run like the path's stages: as graphs or directly."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.names = ("diffusion", "full", "full_plain", "diffusion_no_cache")

    @torch.inference_mode()
    def run(self, name: str, passes: Optional[int], lap: Lap) -> Dict[str, int]:
        """Makes one prediction; returns its number of passes if it decodes."""
        subject = self.subject
        pixels = subject.pixels()
        lap("preprocess")
        mode: Callable[[Dict[str, torch.Tensor], Optional[int], Lap], Dict[str, int]] = getattr(self, f"_{name}")
        return mode(pixels, passes, lap)

    def _diffusion(self, pixels: Dict[str, torch.Tensor], passes: Optional[int], lap: Lap) -> Dict[str, int]:
        self.subject.path.run(self.subject.inputs(pixels), decode=False, lap=lap)
        return {}

    def _full(self, pixels: Dict[str, torch.Tensor], passes: Optional[int], lap: Lap) -> Dict[str, int]:
        path = self.subject.path
        path.passes_given = passes
        result = path.run(self.subject.inputs(pixels), all_tokens=False, lap=lap)
        path.passes_given = None
        assert result.passes is not None, "tokens were decoded"
        return {"passes": int(result.passes[0])}

    def _full_plain(self, pixels: Dict[str, torch.Tensor], passes: Optional[int], lap: Lap) -> Dict[str, int]:
        subject, engine = self.subject, self.subject.path.engine
        patches = engine.encode(pixels)
        lap("vision")
        prefix = engine.prefix(patches, subject.text, subject.state)
        lap("prefix")
        x = engine.denoise(prefix, subject.noise[:, 0], subject.path.steps)
        lap("denoise")
        zero = torch.zeros(1, dtype=torch.long, device=subject.device)
        engine.decode(prefix, x.clamp(-1, 1), zero, subject.path.window).confidence.cpu()
        lap("decode")
        return {"passes": subject.config.action_dim}

    def _diffusion_no_cache(self, pixels: Dict[str, torch.Tensor], passes: Optional[int], lap: Lap) -> Dict[str, int]:
        """Runs without a cache; as a graph if the other modes are graphs."""
        subject, path = self.subject, self.subject.path
        path.stages.begin(("no_cache",))
        patches = path.stages.call("vision", path.engine.encode, pixels)
        lap("vision")
        path.stages.call("denoise", self._whole_sequences, patches, subject.text, subject.state, subject.noise).cpu()
        lap("denoise")
        return {}

    def _whole_sequences(self, patches: torch.Tensor, text: torch.Tensor, state: torch.Tensor, noise: torch.Tensor
                         ) -> torch.Tensor:
        path, model = self.subject.path, self.subject.path.model
        before = prefix_rows(path._bos, patches, model.embed_tokens(text), embed_state_row(model, state))
        x = noise[:, 0].float()
        length = before.shape[1] + 1 + x.shape[1]
        rotary = Rotary(path.config.decoder, torch.arange(length, device=x.device), before.dtype)
        for index in reversed(range(path.steps)):
            tail = denoising_rows(path._times[index].expand(1, -1), model.embed_action(x))
            hidden = model.llm.run(torch.cat([before, tail.to(before.dtype)], dim=1), rotary, None)
            x = path.spaced.step(index, x, model.noise_prediction(hidden[:, -x.shape[1]:]).float())[1]
        return x


def summary(values: Sequence[float]) -> Dict[str, float]:
    """Returns the median, 10th and 99th percentile."""
    return quantiles(values, {"median_ms": 50.0, "p10_ms": 10.0, "p99_ms": 99.0}, 3)
