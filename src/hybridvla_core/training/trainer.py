"""The loop around a stage: optimiser, schedule, moving average, progress, saving and resuming."""
from __future__ import annotations

import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Union

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.training.config import LoopConfig, StageConfig
from hybridvla_core.training.hybrid.loop import average_towards

LOGGER = logging.getLogger(__name__)
Losses = Dict[str, torch.Tensor]
Generator = Union[torch.Generator, np.random.Generator]


class MovingAverage:
    """Exponential moving average of a module's parameters, kept in float32."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        average_towards(self.values, module.state_dict(), self.decay, step)


class Trainer:
    """Runs the stages of a recipe on one model with its auxiliary heads.

    Progress goes to a bar, losses to `log.jsonl` in `folder`, and the state needed to go on to `state.pt` every
    `save_every_s` seconds, so that a restart loses little and goes on as the same run.

    generators: everything random of the run, by name; their states are saved and set again. origin: what the run began
    from, in words; a folder that was begun from something else is refused. rollouts: names of the shards the run has made
    and learns from; None where a state of an older version does not say.
    """

    def __init__(self, model: nn.Module, heads: nn.Module, config: LoopConfig, folder: Path,
                 generators: Mapping[str, Generator], origin: str) -> None:
        self.model, self.heads, self.config, self.folder = model, heads, config, folder
        self.generators, self.origin = generators, origin
        folder.mkdir(parents=True, exist_ok=True)
        self.average = MovingAverage(model, config.ema)
        self.done: List[str] = []
        self.rollouts: Optional[List[str]] = []
        self.stage, self.step, self.seconds = "", 0, 0.0
        self._optimizer_state = None
        self._saved = self._counted = time.monotonic()
        self._resume()

    def run(self, name: str, stage: StageConfig, groups: List[Dict], losses: Callable[[int, float], Losses],
            hooks: Callable[[int], None] = lambda step: None) -> None:
        """Trains the steps of a stage.

        Args:
            name: Of the stage.
            stage: Its steps and learning rate.
            groups: Parameter groups, each with `params` and `scale` (factor on the stage's learning rate).
            losses: Gives, for a step and the share of the stage that is done, named, weighted terms that are summed.
            hooks: Called after each step with its number.

        Raises:
            HybridVLAError: The loss or its gradient is not finite; what is in the folder is from before that.
        """
        if name in self.done:
            return
        if self.stage != name:
            self.stage, self.step, self._optimizer_state = name, 0, None
        optimizer = torch.optim.AdamW([{"params": group["params"], "scale": group["scale"]} for group in groups],
                                      lr=stage.learning_rate, betas=(self.config.betas[0], self.config.betas[1]),
                                      weight_decay=self.config.weight_decay)
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
        parameters = [p for group in groups for p in group["params"]]
        self._counted = time.monotonic()
        smoothed: Dict[str, float] = {}
        with tqdm(total=stage.steps, initial=self.step, desc=name, mininterval=2.0) as bar:
            while self.step < stage.steps:
                share = self.step / stage.steps
                for group in optimizer.param_groups:
                    group["lr"] = stage.learning_rate * group["scale"] * self._rate(self.step, share)
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.config.bfloat16):
                    terms = losses(self.step, share)
                values = list(terms.values())
                total = sum(values[1:], values[0])
                if not torch.isfinite(total):
                    raise self._diverged("loss", terms)
                optimizer.zero_grad(set_to_none=True)
                total.backward()
                if not torch.isfinite(nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip)):
                    raise self._diverged("gradient", terms)
                optimizer.step()
                self.step += 1
                self.average.update(self.model, self.step)
                for key, value in terms.items():
                    smoothed[key] = 0.98 * smoothed.get(key, float(value.detach())) + 0.02 * float(value.detach())
                bar.update(1)
                if self.step % 50 == 0:
                    bar.set_postfix({key: f"{value:.3f}" for key, value in smoothed.items()})
                    self._count()
                    self._log(name, smoothed)
                hooks(self.step)
                if time.monotonic() - self._saved > self.config.save_every_s:
                    self.save(optimizer)
        self.done.append(name)
        self.save(None)

    def _rate(self, step: int, share: float) -> float:
        warm = min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))

    def _diverged(self, what: str, terms: Losses) -> HybridVLAError:
        values = ", ".join(f"{key} {float(value.detach()):.3g}" for key, value in terms.items())
        return HybridVLAError(f"{self.folder}: the {what} of stage {self.stage} is not finite at step {self.step} ({values}); "
                              "lower its learning_rate, or look for a bad shard")

    def _count(self) -> None:
        now = time.monotonic()
        self.seconds, self._counted = self.seconds + now - self._counted, now

    def _log(self, name: str, values: Dict[str, float]) -> None:
        row = {"stage": name, "step": self.step, "seconds": round(self.seconds, 1)}
        row.update({key: round(value, 5) for key, value in values.items()})
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def save(self, optimizer: Optional[torch.optim.Optimizer]) -> None:
        """Write `state.pt` atomically."""
        self._count()
        state = {"model": self.model.state_dict(), "heads": self.heads.state_dict(), "average": self.average.values,
                 "done": self.done, "stage": self.stage, "step": self.step, "seconds": self.seconds,
                 "optimizer": optimizer.state_dict() if optimizer else None, "rollouts": self.rollouts,
                 "origin": self.origin, "torch_random": torch.get_rng_state(),
                 "generators": {name: _state_of(generator) for name, generator in self.generators.items()}}
        partial = self.folder / "state.pt.part"
        torch.save(state, partial)
        os.replace(partial, self.folder / "state.pt")
        self._saved = time.monotonic()

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        if not path.exists():
            return
        try:
            state = torch.load(path, weights_only=True)
            origin = state.get("origin", self.origin)
            if origin != self.origin:
                raise HybridVLAError(f"{path}: this run was begun from {origin} and is now to go on from {self.origin}; "
                                     "give another --work folder, or what it was begun with")
            self._restore(state)
        except (HybridVLAError, OSError):
            raise
        except Exception as error:  # torch.load answers a torn file with whatever its parser stumbles over
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise HybridVLAError(f"{path}: not a state of this recipe's model ({reason}); give another --work folder, or the "
                                 "recipe it was begun with") from error
        LOGGER.info("resuming %s at step %d of stage %s", path, self.step, self.stage)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.average.values = state["average"]
        self.done, self.stage, self.step = list(state["done"]), state["stage"], state["step"]
        self.seconds, self._optimizer_state = state["seconds"], state["optimizer"]
        self.rollouts = state.get("rollouts")
        if "generators" not in state:
            LOGGER.warning("the state is of an older version without random generators: they start from the seed again")
            return
        torch.set_rng_state(state["torch_random"])
        for name, generator in self.generators.items():
            _set_state(generator, state["generators"][name])


def _state_of(generator: Generator) -> Union[torch.Tensor, str]:
    """A generator's state as `torch.load` reads it without unpickling: numpy's, a mapping of large integers, as JSON."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return json.dumps(generator.bit_generator.state)


def _set_state(generator: Generator, state: Union[torch.Tensor, str]) -> None:
    if isinstance(generator, torch.Generator) and isinstance(state, torch.Tensor):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator) and isinstance(state, str):
        generator.bit_generator.state = json.loads(state)
    else:
        raise HybridVLAError(f"the state of a {type(generator).__name__} is kept as {type(state).__name__}; give another --work "
                             "folder")
