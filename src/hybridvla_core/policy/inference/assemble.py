"""From the model's numbers to a `Prediction`: un-normalised actions, the gate's decision, disagreement and spread."""
from __future__ import annotations

from typing import Dict, Sequence, Tuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hybridvla_core.checkpoints.config import EnsembleConfig
from hybridvla_core.contracts import Mode, Prediction
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.policy.inference.ensemble import disagreement, fuse
from hybridvla_core.policy.inference.tensors import PredictionResult
from hybridvla_core.transforms.conventions import DOF_PER_ARM
from hybridvla_core.transforms.normalise import Scale

NAN = float("nan")


class Assembler:
    """The part of a prediction that is arithmetic on a few numbers, on the host."""

    def __init__(self, ensemble: EnsembleConfig, scale: Scale, grippers: Sequence[int], tokens: ActionTokens) -> None:
        self.ensemble, self.scale, self.grippers, self.tokens = ensemble, scale, tuple(grippers), tokens

    def prediction(self, result: PredictionResult, index: int, mode: Mode, seed: int, stage_ms: Dict[str, float]) -> Prediction:
        """Returns the prediction of one row of the batch."""
        diffusion = autoregressive = confidence = None
        mean, distance, angle, complete = NAN, NAN, NAN, True
        samples = 1 if result.denoised is None else result.denoised.shape[1]
        spread = (NAN, NAN)
        if mode != Mode.AUTOREGRESSIVE:
            assert result.denoised is not None, "every mode but the tokens' alone denoises"
            actions = self.scale.unnormalise(result.denoised[index], self.grippers)
            diffusion = actions[0]
            spread = scatter(actions)
        if result.ids is not None:
            autoregressive, confidence, complete = self._decoded(result, index)
            # Tokens that were not decoded count as certain, the most they could be.
            mean = float(np.nan_to_num(confidence, nan=1.0).mean())
        fused, action = False, diffusion if diffusion is not None else autoregressive
        if diffusion is not None and autoregressive is not None and complete:
            distance, angle = disagreement(diffusion[0], autoregressive[0])
            assert confidence is not None, "it comes with the tokens"
            fused = self.ensemble.opens(confidence)
            if fused:
                action = diffusion.copy()
                action[0] = fuse(diffusion[0], autoregressive[0], self.ensemble)
        assert action is not None, "one path has run"
        return Prediction(
            action=action, mode=mode, fused=fused, diffusion=diffusion, autoregressive=autoregressive,
            ar_complete=complete, token_confidence=confidence, mean_confidence=mean, path_distance=distance,
            path_angle=angle, noise_seed=seed, stage_ms=stage_ms,
            passes=0 if result.passes is None else int(result.passes[index]), noise_samples=samples,
            spread_distance=spread[0], spread_angle=spread[1])

    def _decoded(self, result: PredictionResult, index: int) -> Tuple[np.ndarray, np.ndarray, bool]:
        """Returns the tokens' action (1, A) and confidence (A,), NaN after the last exact token."""
        assert result.ids is not None and result.confidence is not None and result.exact is not None, "they come together"
        # Tokens describe one action; only the diffusion path gives the rest of a chunk.
        exact = int(result.exact[index])
        values = self.tokens.decode(torch.from_numpy(result.ids[index])).numpy()[None]
        action, confidence = self.scale.unnormalise(values, self.grippers), result.confidence[index].astype(np.float32)
        action[:, exact:], confidence[exact:] = NAN, NAN
        return action, confidence, exact == len(confidence)


def scatter(actions: np.ndarray) -> Tuple[float, float]:
    """Computes the spread of samples.

    Args:
        actions: (S, K, A) in physical units.

    Returns:
        Root mean square distance (m) and angle (rad) from the samples' mean, the largest over steps and arms; NaN for one sample.
    """
    count = len(actions)
    if count < 2:
        return NAN, NAN
    correction = count / (count - 1)
    places, angles = [], []
    for step in range(actions.shape[1]):
        for start in range(0, actions.shape[2], DOF_PER_ARM):
            position = actions[:, step, start:start + 3]
            places.append(correction * np.mean(np.sum((position - position.mean(0)) ** 2, axis=1)))
            turns = Rotation.from_euler("xyz", actions[:, step, start + 3:start + 6])
            angles.append(correction * np.mean((turns.mean().inv() * turns).magnitude() ** 2))
    return float(np.sqrt(max(places))), float(np.sqrt(max(angles)))
