"""Speed of a training step: samples and rows per second, share of the matrix rate, memory; compared with the released way."""
from __future__ import annotations

import functools
import resource
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.training.hybrid.batch import Batch
from hybridvla_core.training.hybrid.config import ObjectiveConfig, StageConfig
from hybridvla_core.training.hybrid.draws import Noise
from hybridvla_core.training.hybrid.objective import HybridObjective
from hybridvla_core.training.hybrid.parts import DIFFUSION, TOKENS
from hybridvla_core.training.hybrid.rows import markers_behind_text, token_behind_actions
from hybridvla_core.training.hybrid.stages import choose_parameters, groups
from hybridvla_core.training.lora import LoraConfig, add_adapters
from hybridvla_core.transforms.images import picture_key

#: Words in a prompt of usual length.
WORDS = 20
STRATEGY = "resize-naive"
TERMS = frozenset({DIFFUSION, TOKENS})
Call = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """Setting to time: an architecture with random weights, a batch, and the parts that are trained.

    Attributes:
        name: Name of the architecture.
        config: The architecture.
        batch: Samples per step.
        repeats: Noisy copies of each action.
        train: Parts that are trained, as in a stage.
        device: `cpu` or `cuda`.
        bfloat16: Whether to compute in that type.
        checkpointing: Whether to recompute hidden states instead of keeping them.
        seed: Seed of the weights and the batch.
        lora: Adapters on the language model, which are trained in its place.
    """

    name: str
    config: ModelConfig
    batch: int
    repeats: int
    train: str = "finetune"
    device: str = "cpu"
    bfloat16: bool = False
    checkpointing: bool = False
    seed: int = 0
    lora: Optional[LoraConfig] = None


class Step:
    """One step of the general recipe on random data."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.device = setting, torch.device(setting.device)
        torch.manual_seed(setting.seed)
        with self.device:
            model = HybridVLA(setting.config).initialise()
            if setting.lora is not None:
                add_adapters(model.llm, setting.lora, setting.seed)
        model.llm.checkpointing = setting.checkpointing
        self.objective = HybridObjective(model, ObjectiveConfig(repeats=setting.repeats), STRATEGY)
        stage = StageConfig("step", 1, setting.train)
        choose_parameters(self.objective, stage, setting.config.decoder.layers, setting.lora is not None)
        self.optimizer = torch.optim.AdamW(groups(self.objective, stage, 0.0), lr=1e-6)
        self.batch = random_batch(setting.config, setting.batch, setting.repeats, setting.seed).to(self.device)
        self.counts = self.objective.counts(self.batch, TERMS)

    def loss(self) -> torch.Tensor:
        """Returns the loss of the batch."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.setting.bfloat16):
            terms = self.objective(self.batch, TERMS)
        return terms[DIFFUSION] / self.counts[DIFFUSION] + terms[TOKENS] / self.counts[TOKENS]

    def gradients(self) -> None:
        """Runs forward and backward."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()

    def update(self) -> None:
        """Runs the optimiser's update."""
        self.optimizer.step()

    @property
    def rows(self) -> int:
        """Returns the rows of one sample in the language model."""
        return self.objective.plan(self.batch, TERMS).length


def random_batch(config: ModelConfig, size: int, repeats: int, seed: int) -> Batch:
    """Draws a batch of noise pictures, random words, and actions uniform in [-1, 1]."""
    rng = np.random.default_rng(seed)
    limit = min(config.sequence.action_vocab_end - config.bins, 30000)
    markers = np.tile(markers_behind_text(config), (size, 1)).astype(np.int64)
    text = np.concatenate([rng.integers(3, limit, (size, WORDS)), markers], 1)
    actions = torch.from_numpy(rng.uniform(-1, 1, (size, config.chunk, config.action_dim)).astype(np.float32))
    tokens = _tokens(config, actions)
    pixels = {picture_key(tower, STRATEGY): torch.from_numpy(
        rng.integers(0, 255, (size, config.views, tower.image_size, tower.image_size, 3), dtype=np.uint8))
        for tower in config.towers}
    targets = torch.cat([tokens, torch.full_like(tokens[:, :1], token_behind_actions(config))], 1)
    noise = Noise(ObjectiveConfig(repeats=repeats), 4, "released").draw(seed, 0, 0, size, slice(0, size), actions)
    return Batch(pixels, None, torch.from_numpy(text), torch.full((size,), text.shape[1]), torch.zeros(size, config.action_dim),
                 actions, torch.zeros(size, config.chunk, dtype=torch.bool), tokens, targets, noise)


def measure(setting: Setting, rounds: int, tflops: float, others: Mapping[str, Callable[[Step], Call]]) -> Dict[str, Any]:
    """Times forward and backward, and the update, and compares them with other implementations.

    Args:
        setting: The setting to time.
        rounds: Timings of each, after one that is not counted.
        tflops: Rate that the device reaches in a matrix product, 10^12 operations per second.
        others: Other implementations of forward and backward, by name; built from our step and timed in turns with it.

    Returns:
        The result for machines: median times, s, rates, memory, MB, and the ratio of each other implementation's time to ours.
    """
    step = Step(setting)
    made = {name: make(step) for name, make in others.items()}
    with FlopCounterMode(display=False) as counter:
        step.gradients()
    calls: Dict[str, Call] = {"gradients": step.gradients, **made, "update": step.update}
    times: Dict[str, List[Tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(-1, rounds):
        for name, call in calls.items():
            took = _timed(call, step.device)
            if turn >= 0:
                times[name].append(took)
    median, computed = ({name: float(np.median([value[clock] for value in values])) for name, values in times.items()}
                        for clock in (0, 1))
    whole = median["gradients"] + median["update"]
    flops = float(counter.get_total_flops())
    result: Dict[str, Any] = {
        "subject": setting.name, "batch": setting.batch, "repeats": setting.repeats, "train": setting.train,
        "lora_rank": None if setting.lora is None else setting.lora.rank, "views": setting.config.views,
        "device": setting.device, "bfloat16": setting.bfloat16,
        "threads": torch.get_num_threads(), "rounds": rounds,
        "seconds": {name: round(value, 4) for name, value in median.items()},
        "cpu_seconds": {name: round(value, 4) for name, value in computed.items()},
        "samples_per_s": round(setting.batch / whole, 3),
        "rows": step.rows, "tokens_per_s": round(setting.batch * step.rows / whole, 1), "gflop": round(flops / 1e9, 3),
        "share_of_matrix_rate": round(flops / 1e12 / median["gradients"] / tflops, 3), "matrix_tflop_s": tflops,
        "memory_mb": round(_memory(step.device), 1)}
    result["ratios"] = {f"{name}_over_ours": round(median[name] / median["gradients"], 3) for name in made}
    # On a shared computer, the CPU time of our threads tells more than the wall clock.
    result["cpu_ratios"] = {f"{name}_over_ours": round(computed[name] / computed["gradients"], 3) for name in made}
    return result


def _tokens(config: ModelConfig, actions: torch.Tensor) -> torch.Tensor:
    from hybridvla_core.model.tokens import ActionTokens

    return ActionTokens(config).encode(actions[:, 0])


def _timed(call: Call, device: torch.device) -> Tuple[float, float]:
    """Returns the wall-clock time and the CPU time of all our threads, s."""
    start, computed = time.perf_counter(), time.process_time()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, time.process_time() - computed


def _memory(device: torch.device) -> float:
    """Returns the peak memory of the device, or of the process, MB."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def released(step: Step) -> Call:
    """Prepares forward and backward as the released trainer does them, on the same weights and the same batch.

    The whole batch, pictures included, is tiled R times. The language model is Hugging Face's and computes logits of every row;
    the loss ignores all but the labels.

    Args:
        step: Our step.

    Returns:
        The call to time.

    Raises:
        ConfigurationError: transformers is not installed, or the family is not Llama.
    """
    from hybridvla_core.training.released_step import ReleasedStep

    way = ReleasedStep(step.objective.model, step.setting.repeats, step.setting.bfloat16)
    return functools.partial(way.gradients, step.objective.pixels(step.batch), step.batch)
