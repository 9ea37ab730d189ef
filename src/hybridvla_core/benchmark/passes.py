"""Counts the passes that decoding takes over episodes of the simulated rig, and checks whether plain greedy decoding would
have given the same."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Union

import numpy as np
import torch

from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.model.sequence import prefix_length
from hybridvla_core.policy.inference.drafts import ConfidenceGate
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.policy.predictor import Policy
from hybridvla_core.report.statistics import quantiles
from hybridvla_core.transforms.pictures import decode

if TYPE_CHECKING:
    from hybridvla_core.checkpoints.config import EnsembleConfig
    from hybridvla_core.model.config import ModelConfig
    from hybridvla_core.policy.inference.tensors import PredictionInputs
    from hybridvla_core.policy.interface import PolicyInterface
    from hybridvla_core.transforms.conventions import ActionConvention

#: Rounding may decide if these are closer than this: two logits of one position; a mean confidence and the gate.
LOGIT_MARGIN, GATE_MARGIN = 1e-3, 1e-4


class ObservationKeeper:
    """A policy that keeps the observations that it receives.

    Attributes:
        observations: Observations in the order they came.
    """

    def __init__(self, policy: PolicyInterface) -> None:
        self._policy = policy
        self.observations: List[Observation] = []

    @property
    def convention(self) -> ActionConvention:
        """Convention of the policy."""
        return self._policy.convention

    @property
    def cameras(self) -> Sequence[str]:
        """Cameras of the policy."""
        return self._policy.cameras

    @property
    def manifest_sha256(self) -> str:
        """Digest of the policy's manifest."""
        return self._policy.manifest_sha256

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        """Keeps the observation and predicts with the policy."""
        self.observations.append(observation)
        return self._policy.predict(observation, mode=mode, seed=seed)


def text_alone(inputs: PredictionInputs, config: ModelConfig) -> torch.Tensor:
    """Returns the ids (1, T) of a batch of one without the padding to a static shape, which plain decoding would read."""
    if inputs.lengths is None:
        return inputs.text
    return inputs.text[:, :int(inputs.lengths[0]) - prefix_length(config, 0)]


@dataclass(frozen=True)
class PlainAnswer:
    """Result of plain greedy decoding for one observation.

    Attributes:
        ids: (A,) ids of the tokens.
        confidence: (A,) confidence of the tokens, 0 for one that is not an action.
        margin: Smallest difference between the two best logits over all positions.
        denoised: (K, A) denoised, normalised actions.
    """

    ids: np.ndarray
    confidence: np.ndarray
    margin: float
    denoised: np.ndarray

    def close(self, rule: EnsembleConfig) -> bool:
        """Tells whether rounding may decide a token or the gate."""
        return self.margin < LOGIT_MARGIN or abs(rule.score(self.confidence) - rule.theta) < GATE_MARGIN


@torch.inference_mode()
def plain_decoding(engine: PlainDecoding, inputs: PredictionInputs, steps: int, window: int) -> PlainAnswer:
    """Denoises in `steps` and decodes one token per pass, for a batch of one. window: window of the confidence, bins."""
    prefix = engine.prefix(engine.encode(inputs.pixels), text_alone(inputs, engine.config), inputs.state)
    x = engine.denoise(prefix, inputs.noise[:, 0], steps)
    condition = inputs.condition or (x.clamp(-1.0, 1.0), torch.zeros(1, dtype=torch.long, device=x.device))
    decoded = engine.decode(prefix, *condition, window=window, keep_logits=True)
    best = torch.stack(decoded.logits, dim=1)[0].topk(2, dim=-1).values
    return PlainAnswer(decoded.ids[0].cpu().numpy(), decoded.trusted[0].float().cpu().numpy(),
                       float((best[:, 0] - best[:, 1]).min()), x[0].float().cpu().numpy())


def greedy(policy: Policy, observation: Observation, seed: int = 0) -> PlainAnswer:
    """Decodes one observation plainly, as the policy is configured."""
    return plain_decoding(policy.engine, policy.inputs([observation], seed), policy.config.ddim_steps,
                          policy.config.ensemble.confidence_window_bins)


def compare(policy: Policy, observations: Sequence[Observation], seed: int = 0,
            decoded: Optional[Sequence[PlainAnswer]] = None) -> Dict[str, Any]:
    """Compares few passes with plain decoding on every observation. decoded: results of `greedy`; None: computed here."""
    rule = policy.config.ensemble
    gate = ConfidenceGate(rule, policy.config.model.action_dim)
    rows = []
    decoded = [greedy(policy, observation, seed) for observation in observations] if decoded is None else decoded
    for observation, plain in zip(observations, decoded):
        fast = policy.predict(observation, mode=Mode.ENSEMBLE, seed=seed)
        assert fast.token_confidence is not None and fast.autoregressive is not None, "tokens were decoded"
        exact = int(np.isfinite(fast.token_confidence).sum())
        fused = rule.opens(plain.confidence)
        values = policy.engine.tokens.decode(torch.from_numpy(plain.ids)).numpy()[None]
        expected = policy.normaliser.action.unnormalise(values, policy.grippers)[0, :exact]
        rows.append({
            "passes": fast.passes, "fused": fused, "exact": exact, "decision_differs": fused != fast.fused,
            "tokens_differ": not np.allclose(fast.autoregressive[0, :exact], expected, atol=1e-9),
            "close": plain.close(rule), "greedy_passes": greedy_passes(gate, plain.confidence)})
    return summarise(rows, policy.config.model.action_dim)


def greedy_passes(gate: ConfidenceGate, confidence: np.ndarray) -> int:
    """Returns the number of passes of plain decoding that ends early by the same rule."""
    return next((n for n in range(1, len(confidence)) if not gate.reachable(confidence, n)), len(confidence))


def summarise(rows: Sequence[Dict[str, Any]], action_dim: int) -> Dict[str, Any]:
    """Returns the distributions of passes, over all rows and by fused or not, and what differed."""
    parts = {"all": rows, "fused": [r for r in rows if r["fused"]], "unfused": [r for r in rows if not r["fused"]]}
    clear = [r for r in rows if not r["close"]]
    return {
        **{name: {"predictions": len(part), **distribution([r["passes"] for r in part])} for name, part in parts.items()},
        "greedy": {"plain": action_dim, "with_early_end": distribution([r["greedy_passes"] for r in rows])["mean"]},
        "most_passes": max((r["passes"] for r in rows), default=0),
        "more_than_greedy": sum(r["passes"] > action_dim for r in rows),
        "too_close_to_call": len(rows) - len(clear),
        "differences": {"tokens": sum(r["tokens_differ"] for r in rows), "decisions": sum(r["decision_differs"] for r in rows),
                        "tokens_beyond_margin": sum(r["tokens_differ"] for r in clear),
                        "decisions_beyond_margin": sum(r["decision_differs"] for r in clear)}}


def distribution(passes: Sequence[int]) -> Dict[str, Any]:
    """Returns the mean and histogram of pass counts."""
    counts = Counter(passes)
    return {"mean": round(float(np.mean(passes)), 4) if passes else None,
            "counts": {str(n): counts[n] for n in sorted(counts)}}


def reduced_jpeg_effect(policy: Policy, observations: Sequence[Observation]) -> Dict[str, float]:
    """Measures how far the first action's target moves, mm, when JPEGs are decoded at a fraction of their size."""
    import cv2

    distances = []
    for observation in observations:
        jpegs = {view: cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
                 for view, image in observation.images.items()}
        full = {view: decode(data, f"view {view}") for view, data in jpegs.items()}
        reduced = {view: policy.prepare_jpeg(data, view) for view, data in jpegs.items()}
        versions: Sequence[Mapping[str, Any]] = (full, reduced)     # arrays, and their replacements
        first, second = (policy.predict(replace(observation, images=images)).action[0, :3] for images in versions)
        distances.append(float(np.linalg.norm(first - second)) * 1e3)
    return quantiles(distances, {"median_mm": 50.0, "p99_mm": 99.0}, 2)
