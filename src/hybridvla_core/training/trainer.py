"""The loop around a stage: optimiser, schedule, moving average, progress, saving and resuming."""
from __future__ import annotations

import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Callable, Dict, List

import torch
from torch import nn
from tqdm import tqdm

from hybridvla_core.training.config import StageConfig, TrainingConfig

LOGGER = logging.getLogger(__name__)
Losses = Dict[str, torch.Tensor]


class MovingAverage:
    """Exponential moving average of a module's parameters, kept in float32."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        current = module.state_dict()
        names = [name for name, value in self.values.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.values[name] for name in names], [current[name] for name in names], 1 - decay)


class Trainer:
    """Runs the stages of a recipe on one model with its auxiliary heads.

    Progress goes to a bar, losses to `log.jsonl` in `folder`, and the state needed to go on to `state.pt` every
    `save_every_s` seconds, so that a restart loses little.
    """

    def __init__(self, model: nn.Module, heads: nn.Module, config: TrainingConfig, folder: Path) -> None:
        self.model, self.heads, self.config, self.folder = model, heads, config, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.average = MovingAverage(model, config.ema)
        self.done: List[str] = []
        self.stage, self.step, self.seconds = "", 0, 0.0
        self._optimizer_state = None
        self._saved = time.monotonic()
        self._resume()

    def run(self, name: str, stage: StageConfig, groups: List[Dict], losses: Callable[[int, float], Losses],
            hooks: Callable[[int], None] = lambda step: None) -> None:
        """Train `stage.steps` steps; `losses(step, share_done)` gives named, weighted terms that are summed.

        groups: parameter groups, each with `params` and `scale` (factor on the stage's learning rate).
        """
        if name in self.done:
            return
        if self.stage != name:
            self.stage, self.step, self._optimizer_state = name, 0, None
        optimizer = torch.optim.AdamW([{"params": group["params"], "scale": group["scale"]} for group in groups],
                                      lr=stage.learning_rate, betas=tuple(self.config.betas),
                                      weight_decay=self.config.weight_decay)
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
        parameters = [p for group in groups for p in group["params"]]
        started, smoothed = time.monotonic() - 0.0, {}
        with tqdm(total=stage.steps, initial=self.step, desc=name, mininterval=2.0) as bar:
            while self.step < stage.steps:
                share = self.step / stage.steps
                for group in optimizer.param_groups:
                    group["lr"] = stage.learning_rate * group["scale"] * self._rate(self.step, share)
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.config.bfloat16):
                    terms = losses(self.step, share)
                total = sum(terms.values())
                if not torch.isfinite(total):
                    raise FloatingPointError(f"{name} step {self.step}: the loss is not finite: "
                                             f"{ {key: float(value) for key, value in terms.items()} }")
                optimizer.zero_grad(set_to_none=True)
                total.backward()
                nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip)
                optimizer.step()
                self.step += 1
                self.average.update(self.model, self.step)
                for key, value in terms.items():
                    smoothed[key] = 0.98 * smoothed.get(key, float(value.detach())) + 0.02 * float(value.detach())
                bar.update(1)
                if self.step % 50 == 0:
                    bar.set_postfix({key: f"{value:.3f}" for key, value in smoothed.items()})
                    self._log(name, smoothed, self.seconds + time.monotonic() - started)
                hooks(self.step)
                if time.monotonic() - self._saved > self.config.save_every_s:
                    self.save(optimizer)
        self.seconds += time.monotonic() - started
        self.done.append(name)
        self.save(None)

    def _rate(self, step: int, share: float) -> float:
        warm = min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))

    def _log(self, name: str, values: Dict[str, float], seconds: float) -> None:
        row = {"stage": name, "step": self.step, "seconds": round(seconds, 1)}
        row.update({key: round(value, 5) for key, value in values.items()})
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def save(self, optimizer) -> None:
        """Write `state.pt` atomically."""
        state = {"model": self.model.state_dict(), "heads": self.heads.state_dict(), "average": self.average.values,
                 "done": self.done, "stage": self.stage, "step": self.step, "seconds": self.seconds,
                 "optimizer": optimizer.state_dict() if optimizer else None}
        partial = self.folder / "state.pt.part"
        torch.save(state, partial)
        os.replace(partial, self.folder / "state.pt")
        self._saved = time.monotonic()

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.average.values = state["average"]
        self.done, self.stage, self.step = list(state["done"]), state["stage"], state["step"]
        self.seconds, self._optimizer_state = state["seconds"], state["optimizer"]
        LOGGER.info("resuming %s at step %d of stage %s", path, self.step, self.stage)
