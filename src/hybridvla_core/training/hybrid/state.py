"""What a run goes on from: parameters that were trained, their average, the optimiser's moments, and how far it was.

A step is one folder of torch.distributed.checkpoint, written beside its name and renamed when all of it is on the disk: whenever
the process dies, the last whole step is there. The folder can be read by another number of processes. It holds a pickle of
torch's own, so it is for the run that wrote it and never leaves the work folder.
"""
from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_loader import load as read_step
from torch.distributed.checkpoint.state_dict_saver import save as write_step

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.training.distributed import Processes

KEPT = 2
META = "run.json"
NAME = "step-{:09d}"


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: Number of the stage.
        step: Steps done in it.
        total: Steps done in all.
        seconds: Computed in all, s.
        samples: Seen in all.
        trained: Names of all parameters trained so far.
        moments: Names of those that the optimiser has moments of.
        origin: What the run was begun from, part by part.
    """

    stage: int
    step: int
    total: int
    seconds: float
    samples: int
    trained: Tuple[str, ...]
    moments: Tuple[str, ...]
    origin: Mapping[str, Any]


class Store:
    """The steps of a run in `folder`."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.processes = folder, processes
        if processes.first:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".step-*"):
                shutil.rmtree(left, ignore_errors=True)
        processes.wait()

    def last(self) -> Optional[Progress]:
        """Reads how far the last whole step is.

        Returns:
            None before the first one.

        Raises:
            HybridVLAError: The folder is none of ours.
        """
        steps = self._steps()
        if not steps:
            return None
        try:
            data = json.loads((steps[-1] / META).read_text(encoding="utf-8"))
            data["trained"], data["moments"] = tuple(data["trained"]), tuple(data["moments"])
            return Progress(**data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HybridVLAError(f"{steps[-1]}: not a state of this trainer ({error}); give another --work folder") from error

    def save(self, progress: Progress, module: nn.Module, average: Mapping[str, torch.Tensor],
             optimizer: Optional[torch.optim.Optimizer]) -> None:
        """Writes a step; all processes call it.

        Args:
            progress: How far the run is.
            module: The objective, with its weights.
            average: Of the weights, by name.
            optimizer: With its moments; None at a stage's end.

        Raises:
            HybridVLAError: The disk takes no more.
        """
        name = NAME.format(progress.total) + f"-stage-{progress.stage}"
        partial, whole = self.folder / f".{name}", self.folder / name
        if self.processes.first:
            shutil.rmtree(partial, ignore_errors=True)
        self.processes.wait()
        try:
            _quietly(write_step, self._tensors(progress, module, average, optimizer), partial)
            if self.processes.first:
                (partial / META).write_text(json.dumps(asdict(progress)), encoding="utf-8")
                _sync(partial)
                shutil.rmtree(whole, ignore_errors=True)
                os.replace(partial, whole)
                for old in self._steps()[:-KEPT]:
                    shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise HybridVLAError(f"{self.folder}: the state cannot be saved ({error.strerror}); make room and start again: the "
                                 "last whole step is there") from error
        self.processes.wait()

    def load(self, progress: Progress, module: nn.Module, average: Dict[str, torch.Tensor],
             optimizer: Optional[torch.optim.Optimizer]) -> None:
        """Reads the last step; all processes call it.

        Args:
            progress: Of that step.
            module: Gets the weights.
            average: Gets the averaged ones.
            optimizer: Gets the moments.

        Raises:
            HybridVLAError: The step does not fit the model.
        """
        folder = self._steps()[-1]
        state = self._tensors(progress, module, average, optimizer, fresh=True)
        try:
            _quietly(read_step, state, folder)
        except Exception as error:  # torch answers a torn or foreign folder with whatever its parts stumble over
            raise HybridVLAError(f"{folder}: not a state of this recipe's model ({str(error).splitlines()[0]}); give another "
                                 "--work folder, or what the run was begun with") from error
        parameters = dict(module.named_parameters())
        if optimizer is not None:
            for name in progress.moments:
                optimizer.state[parameters[name]] = {key: state[f"moments.{key}.{name}"] for key in MOMENTS}

    def _tensors(self, progress: Progress, module: nn.Module, average: Mapping[str, torch.Tensor],
                 optimizer: Optional[torch.optim.Optimizer], fresh: bool = False) -> Dict[str, Any]:
        """What is written or read, by name. fresh: with new moments to be read into."""
        parameters = dict(module.named_parameters())
        found: Dict[str, Any] = {f"model.{name}": parameters[name].detach() for name in progress.trained}
        found.update({f"average.{name}": average[name] for name in progress.trained if name in average})
        if optimizer is not None:
            for name in progress.moments:
                moments = optimizer.state[parameters[name]] if not fresh else {
                    "step": torch.zeros(()), **{key: torch.zeros_like(parameters[name].detach()) for key in MOMENTS[1:]}}
                found.update({f"moments.{key}.{name}": moments[key] for key in MOMENTS})
        return found

    def _steps(self) -> List[Path]:
        return sorted(path for path in self.folder.glob("step-*") if (path / META).is_file())


#: What AdamW keeps of a parameter.
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def moments_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> Tuple[str, ...]:
    """Names of the parameters that the optimiser has moments of."""
    return tuple(name for name, parameter in module.named_parameters() if optimizer.state.get(parameter))


def _quietly(call: Callable[..., object], state: Dict[str, Any], folder: Path) -> None:
    """Alone, torch warns that it is alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call(state, checkpoint_id=str(folder))


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
