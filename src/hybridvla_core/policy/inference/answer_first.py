"""Predictions with sequence 4 of the paper's table 1: the tokens are part of the prefix, and the noise follows them.

Plain greedy decoding, one pass per token, then the denoising steps on a prefix that ends in the answer. Observations of a batch
run one after the other, so that none is padded. There are no graphs: this is for comparing what was trained, not for a robot.
"""
from __future__ import annotations

from typing import Callable, List, Optional, Tuple

import numpy as np
import torch

from hybridvla_core.model.layers import KVCache
from hybridvla_core.model.sequence import denoising_rows, embed_bos, embed_state_row, prefix_length, prefix_rows
from hybridvla_core.policy.inference.drafts import confidence_of, trusted
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.policy.inference.stages import EagerStages
from hybridvla_core.policy.inference.tensors import PredictionInputs, PredictionResult


class AnswerFirst:
    """Runs predictions of one checkpoint, as `DualPath` does for the other sequences.

    Args:
        engine: Engine of the model.
        steps: Number of denoising steps.
        window: Window of the confidence.
        answers: Whether the tokens were trained; without them the noise directly follows the state, as it was trained.
    """

    ride_steps = 0

    def __init__(self, engine: PlainDecoding, steps: int, window: int, answers: bool) -> None:
        self.engine, self.model, self.config = engine, engine.model, engine.config
        self.steps, self.window, self.answers = steps, window, answers
        self.spaced = engine.schedule.ddim(steps)
        self.stages = EagerStages()

    def run(self, inputs: PredictionInputs, diffusion: bool = True, decode: bool = True, all_tokens: bool = True,
            lap: Callable[[str], None] = lambda stage: None) -> PredictionResult:
        """Runs all stages; see `DualPath.run`. Every token is decoded, because the noise follows all of them."""
        patches = self.engine.encode(inputs.pixels)
        lap("vision")
        answers: List[Tuple[torch.Tensor, torch.Tensor]] = []
        denoised: List[torch.Tensor] = []
        for row in range(len(patches)):
            text = inputs.text[row:row + 1]
            if inputs.lengths is not None:
                text = text[:, :int(inputs.lengths[row]) - prefix_length(self.config, 0)]
            cache, length, answer = self._answer(patches[row:row + 1], text, inputs.state[row:row + 1])
            if answer is not None:
                answers.append(answer)
            if diffusion:
                denoised.append(torch.cat([self._denoise(cache, length, noise[None]) for noise in inputs.noise[row]]))
        lap("denoise")
        result = PredictionResult()
        if diffusion:
            result.denoised = torch.stack(denoised).float().cpu().numpy()
        if decode:
            ids, confidence = (torch.cat(part).cpu().numpy() for part in zip(*answers))
            count = np.full(len(ids), self.config.action_dim, dtype=np.int64)
            result.ids, result.confidence, result.exact, result.passes = ids.astype(np.int64), confidence, count, count - 1
        lap("decode")
        return result

    def _answer(self, patches: torch.Tensor, text: torch.Tensor, state: torch.Tensor
                ) -> Tuple[KVCache, int, Optional[Tuple[torch.Tensor, torch.Tensor]]]:
        """Returns the cache of a prefix that ends in its answer, its length, and the answer's ids and confidences (1, A)."""
        model, dims, dtype = self.model, self.config.action_dim, self.engine.dtype
        bos, words = embed_bos(model, text.device), model.embed_tokens(text)
        rows = prefix_rows(bos, patches, words, embed_state_row(model, state)).to(dtype)
        length = rows.shape[1]
        cache = KVCache(self.config.decoder, 1, length + dims + 2 + self.config.chunk, dtype, text.device)
        hidden = self._pass(cache, 0, rows)
        if not self.answers:
            return cache, length, None
        ids, confidence = [], []
        for index in range(dims):
            logits = model.llm.logits(hidden[:, -1]).float()
            chosen = logits.argmax(dim=-1)
            ids.append(chosen)
            confidence.append(trusted(confidence_of(logits, chosen, self.window, self.engine.tokens), chosen, self.engine.tokens))
            hidden = self._pass(cache, length + index, model.embed_tokens(chosen)[:, None])
        return cache, length + dims, (torch.stack(ids, dim=1), torch.stack(confidence, dim=1))

    def _denoise(self, cache: KVCache, length: int, noise: torch.Tensor) -> torch.Tensor:
        """Runs DDIM from noise (1, K, A) on [BOD, t, x_1 .. x_K] after a prefix."""
        lead = self.model.embed_tokens(torch.tensor([[self.config.sequence.bod]], device=noise.device))
        x = noise.float()
        for index in reversed(range(self.steps)):
            time = torch.tensor([int(self.spaced.timesteps[index])], device=x.device)
            rows = denoising_rows(self.model.embed_timestep(time), self.model.embed_action(x))
            hidden = self._pass(cache, length, torch.cat([lead.to(rows.dtype), rows], dim=1))
            _, x = self.spaced.step(index, x, self.model.noise_prediction(hidden[:, 2:]).float())
        return x

    def _pass(self, cache: KVCache, at: int, rows: torch.Tensor) -> torch.Tensor:
        slots = torch.arange(at, at + rows.shape[1], device=rows.device)
        hidden: torch.Tensor = self.model.llm(rows.to(self.engine.dtype), slots, cache=cache, write_at=slots)
        return hidden
