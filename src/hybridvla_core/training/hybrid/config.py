"""A training run as one self-checking configuration (`config/training/*.yaml` with `recipe: hybrid`)."""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Tuple

from hybridvla_core.configuration import Vector, from_mapping, in_range, one_of, read_mapping, require
from hybridvla_core.data.lerobot.statistics import TAIL
from hybridvla_core.training.augment import StateNoiseConfig
from hybridvla_core.training.hybrid import parts
from hybridvla_core.training.hybrid.grounding.config import GroundingConfig
from hybridvla_core.training.lora import LoraConfig

RECIPE = "hybrid"


@dataclass(frozen=True)
class ObjectiveConfig:
    """The terms L = L_dif + L_ce (paper, section 3.2), and what may be added to them.

    The defaults are the released objective. The second half is for small models that are trained from nothing.

    Attributes:
        diffusion: Weight of L_dif; 0 leaves it out, and timestep and noise with it.
        tokens: Weight of L_ce; 0 leaves it out.
        repeats: Noisy copies of each action (R), which share one prefix.
        token_condition: What the tokens follow: the noisy action of every `copy`, as released, or an `own` one.
        inference_share: Share of timesteps drawn from those that DDIM visits.
        x0_jitter: Half the copies start from an action off by this much (normalised), the noise re-targeted at the true one.
        weight_max: Bound of the weight (1 - abar) / abar of L_dif, which is at least 1.
        condition_zero: Share of own conditions at timestep 0, off by `condition_sigma` (log-uniform, normalised).
        condition_sigma: Least and greatest error of them.
        soften_from: Width of softened targets of the tokens at the stage's begin, bins; 0 is hard.
        soften_to: The same at `soften_until` of the stage; hard after it.
        soften_until: Share of the stage.
    """

    diffusion: float = 1.0
    tokens: float = 1.0
    repeats: int = 4
    token_condition: str = "copy"
    inference_share: float = 0.0
    x0_jitter: float = 0.0
    weight_max: float = 1.0
    condition_zero: float = 0.0
    condition_sigma: Vector = (0.01, 0.4)
    soften_from: float = 0.0
    soften_to: float = 0.0
    soften_until: float = 0.0

    def __post_init__(self) -> None:
        for name in ("diffusion", "tokens"):
            in_range(f"objective: {name}", getattr(self, name), 0.0, 1e3)
        require(self.diffusion > 0 or self.tokens > 0, "objective: diffusion and tokens are both 0; nothing would be learned")
        in_range("objective: repeats", self.repeats, 1, 64)
        require(self.token_condition in ("copy", "own"),
                f"objective: token_condition is {self.token_condition!r}; use copy or own")
        for name in ("inference_share", "condition_zero", "soften_until"):
            in_range(f"objective: {name}", getattr(self, name), 0.0, 1.0)
        in_range("objective: weight_max", self.weight_max, 1.0, 1e3)
        in_range("objective: x0_jitter", self.x0_jitter, 0.0, 1.0)
        require(len(self.condition_sigma) == 2 and 0 < self.condition_sigma[0] <= self.condition_sigma[1],
                "objective: condition_sigma needs two growing positive numbers")
        require(self.soften_from >= self.soften_to >= 0, "objective: soften_from must be at least soften_to, and that 0")
        require(self.soften_until == 0.0 or self.soften_to > 0, "objective: soften_until needs a soften_to above 0")

    def softening(self, share: float) -> float:
        """Width of the softened targets after `share` of the stage, bins; 0 for hard ones."""
        if share >= self.soften_until:
            return 0.0
        return float(self.soften_from * (self.soften_to / self.soften_from) ** (share / self.soften_until))


@dataclass(frozen=True)
class StageConfig:
    """One stage of a run.

    Attributes:
        name: For the log.
        steps: Optimiser's steps.
        train: Which parts are trained: see `stages.py`.
        learning_rate: At its peak.
        tower_rate: Factor on it for the vision towers.
        terms: Terms of objective and grounding that count in it; empty for all with a weight.
        batch: Samples a step over all processes; 0 takes the run's.
    """

    name: str
    steps: int
    train: str = "finetune"
    learning_rate: float = 2e-5
    tower_rate: float = 1.0
    terms: Tuple[str, ...] = ()
    batch: int = 0

    def __post_init__(self) -> None:
        require(bool(self.name), "a stage needs a name")
        in_range(f"stage {self.name}: steps", self.steps, 0, 10 ** 9)
        one_of(f"stage {self.name}: train", self.train, parts.TRAINED)
        in_range(f"stage {self.name}: learning_rate", self.learning_rate, 1e-12, 1.0)
        in_range(f"stage {self.name}: tower_rate", self.tower_rate, 0.0, 100.0)
        in_range(f"stage {self.name}: batch", self.batch, 0, 10 ** 9)
        unknown = sorted(set(self.terms) - set(parts.TERMS))
        require(not unknown, f"stage {self.name}: terms {', '.join(unknown)} are unknown; use {', '.join(parts.TERMS)}")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW as released: constant rate, no warm-up, no decay, clipped at 1.

    Attributes:
        betas: Of AdamW.
        epsilon: Of AdamW; where gradients are rounding alone, a larger one keeps their sign from deciding a step.
        weight_decay: Of matrices; vectors and biases have none.
        gradient_clip: Largest norm of a gradient.
        schedule: `constant`, or `cosine` to 2 % of the rate at the stage's end.
        warmup_steps: Over which the rate grows from 0, of every stage.
    """

    betas: Vector = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    schedule: str = "constant"
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        require(len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "optimizer: betas are two numbers in [0, 1)")
        in_range("optimizer: epsilon", self.epsilon, 1e-12, 1.0)
        in_range("optimizer: weight_decay", self.weight_decay, 0.0, 1.0)
        in_range("optimizer: gradient_clip", self.gradient_clip, 1e-6, 1e6)
        in_range("optimizer: warmup_steps", self.warmup_steps, 0, 10 ** 7)
        one_of("optimizer: schedule", self.schedule, parts.SCHEDULES)

    def factor(self, step: int, steps: int) -> float:
        """Factor on the rate at a step of a stage of `steps`."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "constant":
            return warm
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(1, steps))))


@dataclass(frozen=True)
class DemonstrationConfig:
    """Data that are made in the simulated rig where none are given.

    Attributes:
        task: Its name.
        frames: How many.
        labels: Instructions of each picture.
        seed: Draws them.
        validation: Share of the episodes to validate with.
        even_phases: Whether all phases of the task that a picture allows are equally likely, not all instructions.
    """

    task: str
    frames: int
    labels: int = 1
    seed: int = 1
    validation: float = 0.1
    even_phases: bool = False

    def __post_init__(self) -> None:
        in_range("demonstrations: frames", self.frames, 1, 10 ** 7)
        in_range("demonstrations: labels", self.labels, 1, 1000)
        in_range("demonstrations: seed", self.seed, 0, 1_000_000)
        in_range("demonstrations: validation", self.validation, 0.0, 0.5)


@dataclass(frozen=True)
class TrainingConfig:
    """The whole run.

    Attributes:
        recipe: `hybrid`.
        stages: In order.
        seed: Of everything drawn, at most 10^6.
        preset: Architecture of a model from nothing; empty where `--init` gives it.
        tokenizer: File of a preset that has none of its own.
        cameras: Views in the model's order; empty for those of `--init`, or else of the data set.
        chunk: Actions predicted at once (K); None takes those of `--init`, or 1.
        sequence: Of the paper's table 1, 1 to 4.
        state: `embedding`, `words` (ids of its bins behind the instruction) or `none`.
        image_strategy: How images are fitted; None takes that of `--init`, or `resize-naive`.
        statistics: Of `data`, or of the checkpoint that `--init` names.
        embedders: Of that checkpoint (`init`), or `new`: state and action have other channels, as of two arms for one.
        statistics_tail: Share of the rows that those of `data` cut off on each side of a channel; 0.01 is the released rule.
        objective, grounding, optimizer, lora: See there.
        batch: Samples a step over all processes.
        labels: Samples of one moment in a step: its sentences, which share picture, towers and augmentation.
        draw: What is drawn alike: `rows`, or `moments`, so that a picture with several sentences comes no more often.
        micro_batch: Samples that go through the model at once, for each process; 0 for all of its share.
        precision: `float32` or `bfloat16` (products in bfloat16, sums over processes and weights in float32).
        gradient_checkpointing: Computes a layer's activations again instead of keeping them.
        ema: Decay of the moving average of the weights, which is exported; 0 for none.
        augment: Of pictures: `none`, `released` or `photometric`.
        state_noise: Of reported states.
        workers: Processes that read samples ahead.
        keep_frames: Whether pictures are decoded once, into a folder that is mapped into memory.
        log_every, save_every, validate_every: Steps.
        validation_frames: How many frames of the validation split are looked at.
        ddim_steps, confidence_window_bins: Of the exported checkpoint; None takes those of `--init`, or 4 and 0.
        export: Type of its weights: `float16`, `bfloat16` or `float32`.
        demonstrations: Data to be made where none are given.
    """

    recipe: str
    stages: Tuple[StageConfig, ...]
    seed: int = 42
    preset: str = ""
    tokenizer: str = ""
    cameras: Tuple[str, ...] = ()
    chunk: Optional[int] = None
    sequence: int = 1
    state: str = "embedding"
    image_strategy: Optional[str] = None
    statistics: str = "data"
    embedders: str = "init"
    statistics_tail: float = TAIL
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    grounding: GroundingConfig = field(default_factory=GroundingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: Optional[LoraConfig] = None
    batch: int = 256
    labels: int = 1
    draw: str = "rows"
    micro_batch: int = 0
    precision: str = "float32"
    gradient_checkpointing: bool = False
    ema: float = 0.0
    augment: str = "none"
    state_noise: StateNoiseConfig = field(default_factory=StateNoiseConfig)
    workers: int = 1
    keep_frames: bool = False
    log_every: int = 10
    save_every: int = 200
    validate_every: int = 200
    validation_frames: int = 64
    ddim_steps: Optional[int] = None
    confidence_window_bins: Optional[int] = None
    export: str = "float16"
    demonstrations: Optional[DemonstrationConfig] = None

    def __post_init__(self) -> None:
        require(self.recipe == RECIPE, f"recipe is {self.recipe!r}; this trainer runs {RECIPE}")
        require(bool(self.stages), "stages is empty; a run needs one stage")
        names = [stage.name for stage in self.stages]
        require(len(set(names)) == len(names), f"stages {names} must differ in name")
        require(0 <= self.seed <= 1_000_000, "seed must lie in [0, 10^6]; larger ones belong to evaluation")
        one_of("statistics", self.statistics, parts.STATISTICS)
        one_of("embedders", self.embedders, parts.EMBEDDERS)
        require(self.embedders == "init" or not self.preset, "embedders: new is for a run that starts from --init CHECKPOINT; "
                "with a preset all is new, leave it out")
        require(self.embedders == "init" or self.statistics == "data", "embedders: new needs statistics: data; those of the "
                "checkpoint are of its own channels")
        in_range("statistics_tail", self.statistics_tail, 0.0, 0.05)
        require(self.statistics == "data" or self.statistics_tail == TAIL, f"statistics_tail {self.statistics_tail} is for "
                f"statistics: data; with {self.statistics} those of the checkpoint stay as they are")
        one_of("precision", self.precision, parts.PRECISIONS)
        one_of("draw", self.draw, parts.DRAWS)
        one_of("augment", self.augment, parts.AUGMENTATIONS)
        one_of("export", self.export, parts.EXPORTS)
        for name, low in (("batch", 1), ("labels", 1), ("micro_batch", 0), ("workers", 0), ("log_every", 1),
                          ("save_every", 1), ("validate_every", 1), ("validation_frames", 0)):
            in_range(name, getattr(self, name), low, 10 ** 9)
        for name, low in (("chunk", 1), ("ddim_steps", 1), ("confidence_window_bins", 0)):
            if getattr(self, name) is not None:
                in_range(name, getattr(self, name), low, 10 ** 9)
        in_range("ema", self.ema, 0.0, 0.99999)
        for stage in self.stages:
            require(self.batch_of(stage) % self.labels == 0,
                    f"stage {stage.name}: a batch of {self.batch_of(stage)} samples cannot be made of moments with {self.labels} "
                    "samples (labels) each; choose a multiple")
        require(self.micro_batch % self.labels == 0,
                f"micro_batch {self.micro_batch} would cut moments of {self.labels} samples (labels) in two; choose a multiple")
        if self.lora is not None:
            require(all(stage.train in ("finetune", "full") for stage in self.stages),
                    "lora trains adapters of the language model; its stages are finetune or full")
        if self.sequence == 3:
            require(self.state == "words", "sequence 3 has its state in words; write state: words")

    def batch_of(self, stage: StageConfig) -> int:
        """Samples a step of a stage."""
        return stage.batch or self.batch


def read_recipe(path: Path) -> TrainingConfig:
    """Reads a recipe's file; one that names no recipe, or an unknown one, is refused as that and not by its keys."""
    values = read_mapping(path)
    said = values.get("recipe")
    found = "names no recipe" if said is None else f"recipe is {said!r}"
    require(said == RECIPE, f"{path}: {found}; write recipe: {RECIPE}, with keys as in config/training/tiny_general.yaml (those "
            "of an earlier recipe, as tower and policy, are no more)")
    return from_mapping(TrainingConfig, values, str(path))
