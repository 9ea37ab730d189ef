"""State from which a run resumes: trained parameters, their average, the optimiser's moments, and its progress.

A step is one folder of torch.distributed.checkpoint. It is written under a temporary name and renamed when all of it is on the
disk, so the last whole step exists whenever the process dies. A step that the disk damaged all the same is skipped, and the one
before is used. The folder can be read by another number of processes. It holds a pickle of torch's own, so it is for the run
that wrote it and never leaves the work folder.
"""
from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load as read_step
from torch.distributed.checkpoint.state_dict_saver import save as write_step

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import sync_folder
from hybridvla_core.training.distributed import Processes

LOGGER = logging.getLogger(__name__)
KEPT = 2
META = "run.json"
NAME = "step-{:09d}"
#: Name prefix of a step that could not be read.
TORN = "torn-"
#: Errors that say nothing about the files being read or written.
NOT_OF_FILES = (KeyboardInterrupt, SystemExit, MemoryError, torch.cuda.OutOfMemoryError)


class StepError(HybridVLAError):
    """A step on the disk cannot be read; the one before it may be intact."""


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        stage: Number of the stage.
        step: Steps done in the stage.
        total: Steps done in all.
        seconds: Computing time in all, s.
        samples: Samples seen in all.
        trained: Names of all parameters trained so far.
        moments: Names of the parameters that the optimiser has moments of.
        origin: What the run was started from, part by part.
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
    """Store of a run's steps in `folder`."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.processes = folder, processes
        self._torn: List[Path] = []
        if processes.first:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".step-*"):
                shutil.rmtree(left, ignore_errors=True)
        processes.wait()

    def last(self) -> Optional[Progress]:
        """Reads the progress of the last whole step.

        Returns:
            The progress; None before the first step.

        Raises:
            StepError: The step is not one of ours, or is damaged.
        """
        steps = self._steps()
        if not steps:
            return None
        try:
            data = json.loads((steps[-1] / META).read_text(encoding="utf-8"))
            data["trained"], data["moments"] = tuple(data["trained"]), tuple(data["moments"])
            return Progress(**data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StepError(f"{steps[-1]}: not a state of this trainer ({error}); give another --work folder") from error

    def leave_out(self, error: StepError) -> None:
        """Skips the last step, so that the one before it becomes the last, and warns; every process calls it.

        The skipped step keeps its name until the next one is written, and is then renamed `torn-...`: nothing is removed, because
        the error may have been one of reading.

        Args:
            error: Error of the last step.

        Raises:
            StepError: The same error, if there is no step before.
        """
        steps = self._steps()
        if len(steps) < 2:
            raise error
        self._torn.append(steps[-1])
        if self.processes.first:
            LOGGER.warning("%s. It is left out, going on from %s", error, steps[-2].name)

    def save(self, progress: Progress, module: nn.Module, average: Mapping[str, torch.Tensor],
             optimizer: Optional[torch.optim.Optimizer]) -> None:
        """Writes a step; all processes call it.

        Args:
            progress: How far the run is.
            module: The objective, with its weights.
            average: Average of the weights, by name.
            optimizer: Optimiser with its moments; None at a stage's end.

        Raises:
            HybridVLAError: The disk cannot take the state.
        """
        name = NAME.format(progress.total) + f"-stage-{progress.stage}"
        partial, whole = self.folder / f".{name}", self.folder / name
        if self.processes.first:
            shutil.rmtree(partial, ignore_errors=True)
        self.processes.wait()
        try:
            with _quietly():
                write_step(self._tensors(progress, module, average, optimizer), checkpoint_id=str(partial))
            if self.processes.first:
                (partial / META).write_text(json.dumps(asdict(progress)), encoding="utf-8")
                sync_folder(partial)
                for torn in self._torn:
                    aside = torn.with_name(TORN + torn.name)
                    shutil.rmtree(aside, ignore_errors=True)
                    os.replace(torn, aside)
                shutil.rmtree(whole, ignore_errors=True)
                os.replace(partial, whole)
                for old in self._steps()[:-KEPT]:
                    shutil.rmtree(old, ignore_errors=True)
        except (OSError, CheckpointException) as error:
            raise HybridVLAError(f"{self.folder}: the state cannot be saved ({_reason(error)}); make room and start again: the "
                                 "last complete step is kept") from error
        self._torn = []
        self.processes.wait()

    def load(self, progress: Progress, module: nn.Module, average: Dict[str, torch.Tensor],
             optimizer: Optional[torch.optim.Optimizer]) -> None:
        """Reads the last step; all processes call it.

        Args:
            progress: Progress of that step.
            module: Receives the weights.
            average: Receives the averaged weights.
            optimizer: Receives the moments.

        Raises:
            StepError: The step is damaged, or does not fit the model. The arguments may then be filled in part.
        """
        folder = self._steps()[-1]
        state = self._tensors(progress, module, average, optimizer, fresh=True)
        try:
            with _quietly():
                read_step(state, checkpoint_id=str(folder))
        except (Exception, CheckpointException) as error:  # anything that torch may raise for a damaged or foreign folder
            raise StepError(f"{folder}: not a state of this recipe's model ({_reason(error)}); give another --work folder, or "
                            "what the run was begun with") from error
        parameters = dict(module.named_parameters())
        if optimizer is not None:
            for name in progress.moments:
                optimizer.state[parameters[name]] = {key: state[f"moments.{key}.{name}"] for key in MOMENTS}

    def _tensors(self, progress: Progress, module: nn.Module, average: Mapping[str, torch.Tensor],
                 optimizer: Optional[torch.optim.Optimizer], fresh: bool = False) -> Dict[str, Any]:
        """Returns the tensors to write or read, by name. fresh: with new moments to read into."""
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
        return sorted(path for path in self.folder.glob("step-*") if (path / META).is_file() and path not in self._torn)


#: State that AdamW keeps for each parameter.
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def moments_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> Tuple[str, ...]:
    """Returns the names of the parameters that the optimiser has moments of."""
    return tuple(name for name, parameter in module.named_parameters() if optimizer.state.get(parameter))


def _reason(error: BaseException) -> str:
    """Returns what went wrong, on one line; torch wraps one error per process. Errors unrelated to the files are raised again."""
    failures = [failure[0] for failure in error.failures.values()] if isinstance(error, CheckpointException) else [error]
    for failure in failures:
        if isinstance(failure, NOT_OF_FILES):
            raise failure
    failure = next((failure for failure in failures if isinstance(failure, OSError)), failures[0])
    told = failure.strerror if isinstance(failure, OSError) else None
    return " ".join((told or str(failure) or type(failure).__name__).splitlines()[0].split())


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silences torch, which warns if there is one process, and for a damaged folder logs tracebacks through the root logger."""
    root = logging.getLogger()
    root.addFilter(_not_of_torch)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_not_of_torch)


def _not_of_torch(record: logging.LogRecord) -> bool:
    return record.module != "state_dict_loader"
