"""The subject of a timing: a model with its buffers, from a checkpoint or with random weights, and one observation for it."""
from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Sequence

import numpy as np
import torch

from hybridvla_core.checkpoints.config import EnsembleConfig
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.sequence import prefix_length
from hybridvla_core.model.shrunk.choose import check_dtype, check_precision
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.policy.inference.drafts import ConfidenceGate, FirstDraft
from hybridvla_core.policy.inference.dual_path import DualPath
from hybridvla_core.policy.inference.graphs import choose_stages
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.policy.inference.tensors import PredictionInputs
from hybridvla_core.policy.predictor import DTYPES, Policy
from hybridvla_core.transforms.images import to_pixels

#: Typical length of a prompt, and usual size of camera images.
TEXT_IDS, IMAGE_SIZE = 20, (480, 640)
#: How much wider the output rows of action tokens are drawn if tokens are to be actions.
WIDER = 4.0


class GivenPasses(DualPath):
    """Ends after a given number of passes, because random weights predict nothing that a draft could match."""

    passes_given: Optional[int] = None

    def settled(self, ids: np.ndarray, confidence: np.ndarray, exact: np.ndarray, passes: np.ndarray, all_tokens: bool
                ) -> np.ndarray:
        if self.passes_given is None:
            return super().settled(ids, confidence, exact, passes, all_tokens)
        ended: np.ndarray = passes >= self.passes_given
        return ended


@dataclass
class Subject:
    """A model to measure, and one observation for it.

    Attributes:
        name: Name of the model.
        config: Architecture of the model.
        path: The implementation under test.
        strategy: How images are fitted.
        images: (height, width, 3) uint8 RGB images, by view.
        text: (1, T) ids of the prompt.
        state: (1, A) normalised robot state.
        noise: Noise of the diffusion.
        precision: Precision of the decoder's blocks, one of `shrunk.choose.PRECISIONS`.
    """

    name: str
    config: ModelConfig
    path: GivenPasses
    strategy: str
    images: Dict[str, np.ndarray]
    text: torch.Tensor
    state: torch.Tensor
    noise: torch.Tensor
    precision: str = "full"

    @property
    def device(self) -> torch.device:
        return self.path.device

    @property
    def dtype(self) -> torch.dtype:
        return self.path.engine.dtype

    def pixels(self) -> Dict[str, torch.Tensor]:
        """Pre-processes the images to normalised pixels on the device, as a batch of one."""
        made = to_pixels(list(self.images.values()), list(self.images), self.config.towers, self.strategy)
        return {kind: value[None].to(self.device, non_blocking=True) for kind, value in made.items()}

    def inputs(self, pixels: Dict[str, torch.Tensor]) -> PredictionInputs:
        width = self.path.stages.text_width(self.text.shape[1])
        text, lengths = self.text, None
        if width != text.shape[1]:
            lengths = torch.tensor([prefix_length(self.config, text.shape[1])], device=self.device)
            text = torch.nn.functional.pad(text, (0, width - text.shape[1]), value=self.config.sequence.pad)
        return PredictionInputs(pixels, text, self.state, self.noise, lengths)


def with_random_weights(name: str, config: ModelConfig, dtype: str, device: str, steps: int, graphs: str,
                        ride_steps: Optional[int] = None, seed: int = 0, compile: str = "off",
                        precision: str = "full", tokens_are_actions: bool = False) -> Subject:
    """Makes a model of an architecture with random weights; on a GPU they are drawn there.

    Args:
        name: Name in reports.
        config: The architecture.
        dtype: `float32` or `bfloat16`.
        device: torch's name of the device.
        steps: Number of denoising steps.
        graphs: See `Policy`, also for `ride_steps`, `compile` and `precision`.
        ride_steps: Number of denoising steps that carry a draft.
        seed: Seed of the weights.
        compile: Whether blocks go through torch.compile.
        precision: Precision of the decoder's blocks.
        tokens_are_actions: Draw the output rows of action tokens wider than the others; otherwise decoding would hardly ever
            choose one.

    Returns:
        The model with one observation.

    Raises:
        ConfigurationError: The type or the precision is not available.
    """
    if dtype not in DTYPES:
        raise ConfigurationError(f"dtype {dtype!r}; use one of {', '.join(DTYPES)}")
    check_dtype(dtype, device)
    check_precision(precision, device, dtype)
    torch.manual_seed(seed)
    with torch.device("meta"):
        model = HybridVLA(config)
    model = model.to(dtype=DTYPES[dtype]).to_empty(device=device).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(std=0.02) if tensor.dim() > 1 else tensor.fill_(1.0)
        if tokens_are_actions:
            actions = ActionTokens(config)
            model.llm.lm_head.weight[actions.first:actions.end] *= WIDER
    model.for_inference(precision, compile)
    subject = _subject(name, config, PlainDecoding(model), EnsembleConfig.paper(), steps,
                       "resize-naive", graphs, ride_steps, None, [f"view{i}" for i in range(config.views)])
    subject.precision = precision
    return subject


def of_policy(name: str, policy: Policy, graphs: str, ride_steps: Optional[int] = None) -> Subject:
    """Makes a subject of a checkpoint as it would run."""
    config = policy.config
    subject = _subject(name, config.model, policy.engine, config.ensemble, config.ddim_steps, config.image_strategy, graphs,
                       ride_steps, policy, config.cameras)
    subject.text, subject.precision = subject.text[:, :8].clamp(max=500), policy.precision
    return subject


def _subject(name: str, config: ModelConfig, engine: PlainDecoding, ensemble: EnsembleConfig, steps: int, strategy: str,
             graphs: str, ride_steps: Optional[int], policy: Optional[Policy], views: Sequence[str]) -> Subject:
    device = engine.model.llm.lm_head.weight.device
    scale = None if policy is None else policy.normaliser.action
    draft = FirstDraft(engine.tokens, scale, tuple(range(6, config.action_dim, 7)) if scale else (), device)
    path = GivenPasses(engine, steps, ConfidenceGate(ensemble, config.action_dim), draft, ensemble.confidence_window_bins,
                       choose_stages(graphs, device), ride_steps)
    rng = np.random.default_rng(0)
    images = {view: rng.integers(0, 255, (*IMAGE_SIZE, 3), dtype=np.uint8) for view in views}
    limit = min(config.sequence.action_vocab_end - config.bins, 30000)
    return Subject(name, config, path, strategy, images,
                   torch.from_numpy(rng.integers(3, limit, (1, TEXT_IDS))).to(device),
                   torch.zeros(1, config.action_dim, device=device),
                   torch.from_numpy(rng.standard_normal((1, 1, config.chunk, config.action_dim))).float().to(device))


def device_name(device: torch.device) -> str:
    """Returns the name of the card, or of the processor."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return processor_name()


def processor_name() -> str:
    """Returns the operating system's name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
