"""One stage, step by step: forward, backward, optimiser, average; log, state, validation and evaluation when due."""
from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional

import torch
from torch import nn

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.training.distributed import Processes
from hybridvla_core.training.hybrid import stages
from hybridvla_core.training.hybrid.batch import Batch
from hybridvla_core.training.hybrid.config import TrainingConfig
from hybridvla_core.training.hybrid.feed import Feed, deaths_named, read_ahead
from hybridvla_core.training.hybrid.objective import HybridObjective, Terms
from hybridvla_core.training.hybrid.stages import wanted_terms, weight_of
from hybridvla_core.training.hybrid.state import Progress, Store, moments_of
from hybridvla_core.training.progress import Bar, RunLog

Values = Dict[str, float]
VALIDATION_BATCH = 16


@dataclass(frozen=True)
class Hooks:
    """Callbacks of the caller.

    Attributes:
        evaluate: Called in all processes with the steps done and the objective, with the averaged weights in it; its result
            goes into the log.
        evaluate_every: Steps between two evaluations; 0 for never.
        stop: Called after every step, on every process; if one returns True, the state is saved and the run ends.
    """

    evaluate: Optional[Callable[[int, HybridObjective], Mapping[str, Any]]] = None
    evaluate_every: int = 0
    stop: Optional[Callable[[], bool]] = None


@torch.no_grad()
def average_towards(average: Mapping[str, torch.Tensor], current: Mapping[str, torch.Tensor], decay: float, step: int) -> None:
    """Updates an exponential moving average in place; early steps count more, so that the start is soon forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    names = [name for name, value in average.items() if value.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in names], [current[name].detach() for name in names], 1 - decay)


def _numbers(terms: Terms) -> Values:
    """Returns the values of all terms, with one transfer."""
    return dict(zip(terms, torch.stack([value.detach().double() for value in terms.values()]).tolist()))


class StageLoop:
    """Loop of one stage of a run.

    Args:
        objective: Sharded objective, with parameters frozen as the stage requires.
        config: Configuration of the run.
        number: Number of the stage.
        feed: Source of batches.
        processes: This process among all.
        store: Store of states.
        log: Log, on the first process.
        hooks: Callbacks of the caller.
    """

    def __init__(self, objective: HybridObjective, config: TrainingConfig, number: int, feed: Feed, processes: Processes,
                 store: Store, log: Optional[RunLog], hooks: Hooks) -> None:
        self.objective, self.config, self.number, self.feed = objective, config, number, feed
        self.processes, self.store, self.log, self.hooks = processes, store, log, hooks
        self.stage = config.stages[number]
        self.terms = wanted_terms(config, self.stage)
        self.batch = config.batch_of(self.stage)
        self.optimizer = torch.optim.AdamW(
            stages.groups(objective, self.stage, config.optimizer.weight_decay), lr=self.stage.learning_rate,
            betas=(config.optimizer.betas[0], config.optimizer.betas[1]), eps=config.optimizer.epsilon)
        self.average: Dict[str, torch.Tensor] = {}

    @deaths_named()
    def run(self, progress: Progress) -> Progress:
        """Trains from where `progress` is to the stage's end.

        Args:
            progress: Progress of the whole run.

        Returns:
            Progress at which the next stage begins, or at which the run was stopped.

        Raises:
            HybridVLAError: A loss is not finite, a frame cannot be read, a process that reads was killed, or the disk is full.
        """
        resumed = progress.total > 0
        self._start(progress, resumed)
        if progress.stage > self.number:
            return progress
        progress = replace(progress, trained=tuple(sorted({*progress.trained, *self._trained()})))
        steps = self.stage.steps
        loader = read_ahead(self.feed, self.number, self.batch, progress.step, steps, self.config.workers,
                            self.processes.device.type == "cuda")
        bar = Bar(self.stage.name, steps * self.batch, progress.step * self.batch, self.processes.first)
        began = time.monotonic()
        shown: Values = {}
        for batch in loader:
            if isinstance(batch, HybridVLAError):
                raise batch
            values = self._step(batch, progress.step)
            progress = replace(progress, step=progress.step + 1, total=progress.total + 1, samples=progress.samples + self.batch,
                               seconds=progress.seconds + time.monotonic() - began)
            began = time.monotonic()
            shown = {key: 0.9 * shown.get(key, value) + 0.1 * value for key, value in values.items()}
            bar.add(self.batch, shown)
            self._at_times(progress, values)
            if progress.step < steps and self._stopped():
                bar.close()
                self._save(progress)
                return progress
        bar.close()
        progress = replace(progress, stage=self.number + 1, step=0, moments=())
        self.store.save(progress, self.objective, self.average, None)
        return progress

    def validate(self) -> Values:
        """Returns the means of the terms over the validation split, with the averaged weights; empty if there is none."""
        sums: Values = {}
        counts: Values = {}
        with self.averaged(), torch.no_grad(), self._precision(), self._still():
            for number, frames in enumerate(self.feed.validation(VALIDATION_BATCH)):
                batch = self.feed.validation_batch(number, frames)
                for key, count in self.objective.counts(batch, self.terms).items():
                    counts[key] = counts.get(key, 0.0) + count
                for key, value in _numbers(self.objective(batch.to(self.processes.device), self.terms)).items():
                    sums[key] = sums.get(key, 0.0) + value
            self.processes.settle(self.objective)
        return {key: value / max(counts[key], 1.0) for key, value in sums.items()}

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the averaged weights into the model for the duration of the block."""
        parameters = dict(self.objective.named_parameters())
        own = {name: parameters[name].detach().clone() for name in self.average}
        try:
            _copy(parameters, self.average)
            yield
        finally:
            _copy(parameters, own)

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """Switches dropout off for the duration of the block."""
        self.objective.eval()
        try:
            yield
        finally:
            self.objective.train()

    def _start(self, progress: Progress, resumed: bool) -> None:
        parameters = dict(self.objective.named_parameters())
        if self.config.ema:
            self.average = {name: parameters[name].detach().clone() for name in progress.trained}
        if resumed:
            self.store.load(progress, self.objective, self.average, self.optimizer)
        if self.config.ema:
            self.average.update({name: parameters[name].detach().clone() for name in self._trained() if name not in self.average})

    def _trained(self) -> Iterator[str]:
        return (name for name, parameter in self.objective.named_parameters() if parameter.requires_grad)

    def _step(self, batch: Batch, step: int) -> Values:
        """Takes one step of the optimiser; returns the means of the terms over the whole step."""
        config = self.config
        # Seed of the adapters' dropout, which every process draws for its own samples.
        torch.manual_seed((config.seed * 1_000_003 + self.number * 10_007 + step + self.processes.rank * 15_485_863) % (1 << 31))
        counts = self.processes.sums(self.objective.counts(batch, self.terms))
        pieces = list(batch.parts(config.micro_batch or len(batch)))
        sums = dict.fromkeys(sorted(counts), 0.0)
        found: List[Terms] = []
        softening = config.objective.softening(step / max(1, self.stage.steps))
        for index, piece in enumerate(pieces):
            self.processes.synchronise(self.objective, index == len(pieces) - 1)
            with self._precision():
                terms = self.objective(piece.to(self.processes.device), self.terms, softening)
            # Gradients are averaged over processes, but sums are needed.
            total = sum(weight_of(config, key) * value / max(counts[key], 1.0) for key, value in terms.items())
            (total * self.processes.world).backward()
            found.append({key: value.detach() for key, value in terms.items()})
        for terms in found:      # read only after all work is queued: reading a number makes the host wait for the GPU
            for key, number in _numbers(terms).items():
                sums[key] += number
        sums = self.processes.sums(sums)
        values = {key: sums[key] / max(counts[key], 1.0) for key in sums}
        self._update(step, values)
        return values

    def _update(self, step: int, values: Values) -> None:
        config = self.config
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm: Any = nn.utils.clip_grad_norm_(parameters, config.optimizer.gradient_clip)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if not torch.isfinite(norm) or not all(value == value and abs(value) != float("inf") for value in values.values()):
            shown = ", ".join(f"{key} {value:.3g}" for key, value in values.items())
            raise HybridVLAError(f"stage {self.stage.name}: loss or gradient is not finite at step {step} ({shown}); lower its "
                                 "learning_rate, or look for a bad data set. The state before it is kept")
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.learning_rate * group["scale"] * config.optimizer.factor(step, self.stage.steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            current = dict(self.objective.named_parameters())
            average_towards(self.average, {name: current[name] for name in self.average}, config.ema, step)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.processes.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _at_times(self, progress: Progress, values: Values) -> None:
        config, total = self.config, progress.total
        row = {"stage": self.stage.name, "step": progress.step, "total": total, "samples": progress.samples}
        rounded = {key: round(value, 6) for key, value in values.items()}
        if total % config.log_every == 0 or progress.step == self.stage.steps:
            rate = progress.samples / max(progress.seconds, 1e-9)
            self._write({"kind": "train", **row, **rounded, "seconds": round(progress.seconds, 1),
                         "samples_per_s": round(rate, 2)})
        if config.validation_frames and (total % config.validate_every == 0 or progress.step == self.stage.steps):
            found = self.validate()
            if found:
                self._write({"kind": "validation", **row, **{key: round(value, 6) for key, value in found.items()}})
        if self.hooks.evaluate is not None and self.hooks.evaluate_every and total % self.hooks.evaluate_every == 0:
            with self.averaged():
                result = self.hooks.evaluate(total, self.objective)
            self._write({"kind": "evaluation", **row, **result})
        if total % config.save_every == 0 and progress.step < self.stage.steps:
            self._save(progress)

    def _save(self, progress: Progress) -> None:
        """Saves the state within a stage."""
        progress = replace(progress, moments=moments_of(self.objective, self.optimizer))
        self.store.save(progress, self.objective, self.average, self.optimizer)

    def _stopped(self) -> bool:
        """Tells whether any process wants to stop; all processes get the same answer."""
        stop = self.hooks.stop
        return stop is not None and self.processes.sums({"stop": float(stop())})["stop"] > 0

    def _write(self, row: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.write(row)


@torch.no_grad()
def _copy(parameters: Mapping[str, nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    for name, value in values.items():
        parameters[name].copy_(value)
