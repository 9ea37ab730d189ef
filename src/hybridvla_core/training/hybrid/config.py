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
    """Terms of L = L_dif + L_ce (paper, section 3.2), and possible additions.

    The defaults are the released objective. The second half is for small models that are trained from scratch.

    Attributes:
        diffusion: Weight of L_dif; 0 leaves it out, together with timestep and noise.
        tokens: Weight of L_ce; 0 leaves it out.
        repeats: Noisy copies of each action (R), which share one prefix.
        token_condition: Noisy action that the tokens follow: that of every `copy`, as released, or their `own`.
        inference_share: Share of timesteps drawn from those that DDIM visits.
        x0_jitter: Error of the action that half the copies start from (normalised); their noise is re-targeted at the true one.
        weight_max: Upper bound of the weight (1 - abar) / abar of L_dif, which is at least 1.
        condition_zero: Share of own conditions at timestep 0, with an error of size `condition_sigma` (log-uniform, normalised).
        condition_sigma: Least and greatest size of that error.
        soften_from: Width of the softened token targets at the beginning of a stage, bins; 0 is hard.
        soften_to: Their width at `soften_until` of the stage, bins; targets are hard after that.
        soften_until: Share of the stage with softened targets.
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
        require(self.soften_from >= self.soften_to >= 0,
                "objective: soften_from must be at least soften_to, and soften_to at least 0")
        require(self.soften_until == 0.0 or self.soften_to > 0, "objective: soften_until needs a soften_to above 0")

    def softening(self, share: float) -> float:
        """Returns the width of the softened targets after `share` of the stage, bins; 0 for hard ones."""
        if share >= self.soften_until:
            return 0.0
        return float(self.soften_from * (self.soften_to / self.soften_from) ** (share / self.soften_until))


@dataclass(frozen=True)
class StageConfig:
    """One stage of a run.

    Attributes:
        name: Name for the log.
        steps: Number of optimiser steps.
        train: Parts that are trained: see `stages.py`.
        learning_rate: Peak learning rate.
        tower_rate: Factor on that rate for the vision towers.
        terms: Terms of objective and grounding that count in the stage; empty for all with a weight.
        batch: Samples per step over all processes; 0 takes the run's.
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
        betas: Betas of AdamW.
        epsilon: Epsilon of AdamW; if gradients are only rounding errors, a larger one keeps their sign from deciding a step.
        weight_decay: Weight decay of matrices; vectors and biases have none.
        gradient_clip: Largest norm of a gradient.
        schedule: `constant`, or `cosine` to 2 % of the rate at the stage's end.
        warmup_steps: Steps at the beginning of every stage over which the rate grows from 0.
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
        """Returns the factor on the rate at a step of a stage of `steps` steps."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "constant":
            return warm
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(1, steps))))


@dataclass(frozen=True)
class DemonstrationConfig:
    """Data that are generated in the simulated rig if none are given.

    Attributes:
        task: Name of the task.
        frames: Number of frames.
        labels: Instructions per picture.
        seed: Seed of the demonstrations.
        validation: Share of the episodes to validate with.
        even_phases: Whether all task phases that a picture allows are equally likely, instead of all instructions.
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
        recipe: Name of the recipe, `hybrid`.
        stages: Stages in order.
        seed: Seed of everything drawn, at most 10^6.
        preset: Architecture of a model trained from scratch; empty if `--init` gives it.
        tokenizer: Tokenizer file for a preset that has none of its own.
        cameras: Views in the model's order; empty for those of `--init`, or else of the data set.
        chunk: Actions predicted at once (K); None takes the value of `--init`, or 1.
        sequence: Kind of the sequence in the paper's table 1, 1 to 4.
        state: How the state enters: `embedding`, `words` (ids of its bins after the instruction) or `none`.
        image_strategy: How images are fitted; None takes that of `--init`, or `resize-naive`.
        statistics: Source of the statistics: `data`, or the checkpoint that `--init` names.
        embedders: Those of that checkpoint (`init`), or `new`: state and action have other channels, as of two arms for one.
        statistics_tail: Share of the rows that statistics of `data` cut off on each side of a channel; 0.01 is the released rule.
        objective, grounding, optimizer, lora: See the respective class.
        batch: Samples per step over all processes.
        labels: Samples of one moment in a step: its sentences, which share picture, towers and augmentation.
        draw: Unit drawn with equal probability: `rows`, or `moments`, so that a picture with more sentences is not more frequent.
        micro_batch: Samples that go through the model at once in each process; 0 for all of its share.
        precision: `float32` or `bfloat16` (products in bfloat16, sums over processes and weights in float32).
        gradient_checkpointing: Whether to recompute a layer's activations instead of keeping them.
        ema: Decay of the moving average of the weights, which is exported; 0 for none.
        augment: Augmentation of pictures: `none`, `released` or `photometric`.
        state_noise: Noise on reported states.
        workers: Number of processes that read samples ahead.
        keep_frames: Whether pictures are decoded once, into a folder that is mapped into memory.
        log_every, save_every, validate_every: Steps between two of these actions.
        validation_frames: Number of frames of the validation split that are used.
        ddim_steps, confidence_window_bins: Values of the exported checkpoint; None takes those of `--init`, or 4 and 0.
        export: Type of the exported weights: `float16`, `bfloat16` or `float32`.
        demonstrations: Data to be generated if none are given.
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
        for name, allowed in (("statistics", parts.STATISTICS), ("embedders", parts.EMBEDDERS), ("precision", parts.PRECISIONS),
                              ("draw", parts.DRAWS), ("augment", parts.AUGMENTATIONS), ("export", parts.EXPORTS)):
            one_of(name, getattr(self, name), allowed)
        require(self.embedders == "init" or not self.preset, "embedders: new is for a run that starts from --init CHECKPOINT; "
                "with a preset everything is new, so leave it out")
        require(not self.tokenizer or bool(self.preset), "tokenizer is for a preset; a run that starts from --init CHECKPOINT "
                "keeps the checkpoint's, so leave it out")
        require(self.embedders == "init" or self.statistics == "data", "embedders: new needs statistics: data; those of the "
                "checkpoint are of its own channels")
        in_range("statistics_tail", self.statistics_tail, 0.0, 0.05)
        require(self.statistics == "data" or self.statistics_tail == TAIL, f"statistics_tail {self.statistics_tail} is for "
                f"statistics: data; with {self.statistics} those of the checkpoint stay as they are")
        self.grounding.check_augmentation(self.augment)
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
        """Returns the samples per step of a stage."""
        return stage.batch or self.batch


def read_recipe(path: Path) -> TrainingConfig:
    """Reads a recipe's file; if it names no recipe or an unknown one, the error says so and does not list keys."""
    values = read_mapping(path)
    said = values.get("recipe")
    found = "names no recipe" if said is None else f"recipe is {said!r}"
    require(said == RECIPE, f"{path}: {found}; write recipe: {RECIPE}, with keys as in config/training/tiny_general.yaml (those "
            "of an earlier recipe, such as tower and policy, no longer exist)")
    return from_mapping(TrainingConfig, values, str(path))
