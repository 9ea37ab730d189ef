"""`Policy`: one observation in, one prediction out."""
from __future__ import annotations

import time
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch

from hybridvla_core.checkpoints.format import Checkpoint, read_checkpoint, read_weights
from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.conventions import DOF_PER_ARM, ActionConvention
from hybridvla_core.errors import ConfigurationError, ObservationError
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.policy.engine import Decoded, Engine, draw_noise
from hybridvla_core.policy.ensemble import disagreement, fuse
from hybridvla_core.policy.normalize import Normaliser
from hybridvla_core.policy.preprocess import to_pixels
from hybridvla_core.policy.sequence import PromptEncoder

MODES = {"ensemble": Mode.ENSEMBLE, "diffusion": Mode.DIFFUSION, "autoregressive": Mode.AUTOREGRESSIVE}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Policy:
    """A checkpoint ready to predict. One prediction is one vision pass, one prefix pass, the denoising steps on the
    cached prefix, and the decoding passes behind them (paper, section 3.3)."""

    def __init__(self, checkpoint: Checkpoint, model: HybridVLA, mode: str = "ensemble") -> None:
        self.checkpoint, self.config = checkpoint, checkpoint.config
        self.model = model.eval()
        self.engine = Engine(self.model)
        self.mode = _mode(mode)
        self.prompts = PromptEncoder.from_file(checkpoint.tokenizer_file, self.config.model.sequence)
        self.normaliser = Normaliser.from_json(checkpoint.statistics, self.config.statistics_key,
                                               self.config.model.action_dim,
                                               str(checkpoint.folder / "dataset_statistics.json"))
        self.device = next(model.parameters()).device
        self.grippers = tuple(range(6, self.config.model.action_dim, DOF_PER_ARM))
        self._prefix_ids: Dict[str, List[int]] = {}

    @classmethod
    def from_checkpoint(cls, folder: Union[str, Path], mode: str = "ensemble", device: str = "cpu",
                        dtype: str = "float32") -> Policy:
        """Load a checkpoint folder; raises CheckpointError or ConfigurationError with one sentence."""
        if dtype not in DTYPES:
            raise ConfigurationError(f"dtype {dtype!r}; use one of {', '.join(DTYPES)}")
        checkpoint = read_checkpoint(Path(folder))
        with torch.device("meta"):
            model = HybridVLA(checkpoint.config.model)
        model = model.to(dtype=DTYPES[dtype]).to_empty(device=device)
        read_weights(checkpoint, model)
        if device == "cpu" and checkpoint.config.model.decoder.hidden <= 512:
            model.vision_backbone.use_fused_attention(False)
        return cls(checkpoint, model, mode)

    @property
    def convention(self) -> ActionConvention:
        return self.config.convention

    @property
    def cameras(self) -> Tuple[str, ...]:
        return self.config.cameras

    @property
    def manifest_sha256(self) -> str:
        return self.checkpoint.manifest_sha256

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        """One action chunk. The noise comes from (seed, observation.stamp_ns), so a prediction can be repeated.

        Raises ObservationError naming the view, the state channel or the instruction that cannot be used.
        """
        return self._predict([observation], mode, seed)[0]

    def predict_batch(self, observations: Sequence[Observation], mode: Union[str, Mode, None] = None, seed: int = 0
                      ) -> List[Prediction]:
        """As `predict` for many observations; those whose instruction has as many tokens share the passes."""
        groups: Dict[int, List[int]] = {}
        for index, observation in enumerate(observations):
            groups.setdefault(len(self._text(observation.instruction)), []).append(index)
        results: List[Optional[Prediction]] = [None] * len(observations)
        for indices in groups.values():
            for index, prediction in zip(indices, self._predict([observations[i] for i in indices], mode, seed)):
                results[index] = prediction
        return results

    @torch.inference_mode()
    def _predict(self, observations: Sequence[Observation], mode: Union[str, Mode, None], seed: int) -> List[Prediction]:
        chosen = self.mode if mode is None else _mode(mode)
        clock = _Stages()
        text = torch.tensor([self._text(o.instruction) for o in observations], device=self.device)
        state = torch.from_numpy(np.stack([self._state(o) for o in observations])).float().to(self.device)
        pixels = self._pixels(observations)
        clock.lap("preprocess")
        patches = self.engine.encode(pixels)
        clock.lap("vision")
        prefix = self.engine.prefix(patches, text, state)
        clock.lap("prefix")
        chunk, dims = self.config.model.chunk, self.config.model.action_dim
        draws = [draw_noise(seed, o.stamp_ns, chunk, dims) for o in observations]
        condition = self.config.autoregressive_condition
        denoised = None
        if chosen != Mode.AUTOREGRESSIVE or condition == "denoised":
            noise = torch.stack([draw[0] for draw in draws]).to(self.device)
            denoised = self.engine.denoise(prefix, noise, self.config.ddim_steps)
            clock.lap("denoise")
        decoded = None
        if chosen != Mode.DIFFUSION:
            x, timestep = self._condition(condition, denoised, draws)
            decoded = self.engine.decode(prefix, x, timestep, self.config.ensemble.confidence_window_bins)
            clock.lap("decode")
        return [self._assemble(i, chosen, denoised, decoded, seed, clock.per(len(observations)))
                for i in range(len(observations))]

    def _condition(self, condition: str, denoised, draws) -> Tuple[torch.Tensor, torch.Tensor]:
        """x (B, K, A) and timestep (B,) in front of EOD."""
        if condition == "denoised":
            return denoised.clamp(-1.0, 1.0), torch.zeros(denoised.shape[0], dtype=torch.long, device=self.device)
        x = torch.stack([draw[1] for draw in draws]).to(self.device)
        steps = [draw[2] if condition == "released" else self.engine.schedule.steps - 1 for draw in draws]
        return x, torch.tensor(steps, device=self.device)

    def _assemble(self, index: int, mode: Mode, denoised: Optional[torch.Tensor], decoded: Optional[Decoded],
                  seed: int, stage_ms: Dict[str, float]) -> Prediction:
        unnormalise = self.normaliser.action.unnormalise
        diffusion = autoregressive = confidence = None
        if mode != Mode.AUTOREGRESSIVE:
            diffusion = unnormalise(denoised[index].cpu().numpy(), self.grippers)
        if decoded is not None:
            # Tokens describe one action; the diffusion path alone gives the rest of a chunk.
            autoregressive = unnormalise(decoded.values[index].numpy()[None], self.grippers)
            confidence = decoded.confidence[index].float().cpu().numpy()
        fused, distance, angle = False, float("nan"), float("nan")
        action = autoregressive if diffusion is None else diffusion
        if diffusion is not None and autoregressive is not None:
            distance, angle = disagreement(diffusion[0], autoregressive[0])
            fused = self.config.ensemble.passes(confidence)
            if fused:
                action = diffusion.copy()
                action[0] = fuse(diffusion[0], autoregressive[0], self.config.ensemble)
        return Prediction(
            action=action, mode=mode, fused=fused, diffusion=diffusion, autoregressive=autoregressive,
            token_confidence=confidence, mean_confidence=float("nan") if confidence is None else float(confidence.mean()),
            path_distance=distance, path_angle=angle, noise_seed=seed, stage_ms=stage_ms)

    def _pixels(self, observations: Sequence[Observation]) -> Dict[str, torch.Tensor]:
        rows = []
        for observation in observations:
            missing = [name for name in self.cameras if name not in observation.images]
            if missing:
                raise ObservationError(f"view {', '.join(missing)} is missing; the checkpoint needs "
                                       f"{', '.join(self.cameras)}")
            rows.append(to_pixels([observation.images[name] for name in self.cameras], self.cameras,
                                  self.config.model.towers, self.config.image_strategy))
        return {kind: torch.stack([row[kind] for row in rows]).to(self.device) for kind in rows[0]}

    def _state(self, observation: Observation) -> np.ndarray:
        state = np.asarray(observation.state, dtype=np.float64)
        if state.shape != (self.config.model.action_dim,):
            raise ObservationError(f"the robot state has shape {state.shape}, the checkpoint needs "
                                   f"({self.config.model.action_dim},)")
        if not np.isfinite(state).all():
            raise ObservationError(f"the robot state is not finite in channel {np.flatnonzero(~np.isfinite(state)).tolist()}")
        return self.normaliser.state.normalise(state)

    def _text(self, instruction: str) -> List[int]:
        if instruction not in self._prefix_ids:
            self._prefix_ids[instruction] = self.prompts.prefix_ids(instruction)
        return self._prefix_ids[instruction]


class _Stages:
    """Wall time of the stages of a prediction, ms."""

    def __init__(self) -> None:
        self.times: Dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.times[name] = (now - self._last) * 1e3
        self._last = now

    def per(self, count: int) -> Dict[str, float]:
        return {name: value / count for name, value in self.times.items()}


def _mode(name: Union[str, Mode]) -> Mode:
    if isinstance(name, Mode):
        return name
    if name not in MODES:
        raise ConfigurationError(f"mode {name!r}; use one of {', '.join(MODES)}")
    return MODES[name]
