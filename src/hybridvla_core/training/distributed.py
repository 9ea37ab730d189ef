"""Training on one process or several: rank of this process, sharded parameters (FSDP2), sums over all.

Several processes are started by torchrun and need torch 2.6, where `fully_shard` is public. With one process, nothing is
sharded and any torch works.
"""
from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Callable, Dict, Iterable, List, Mapping

import torch
import torch.distributed as dist
from torch import nn

from hybridvla_core.errors import ConfigurationError, HybridVLAError

LEAST_TORCH = (2, 6)
#: Longest time that a process waits for the others. torch gives 30 minutes (gloo) or 10 (NCCL), but the first process makes
#: data sets, decodes all pictures and runs episodes while the others wait. A longer limit costs little: torchrun notices at
#: once when a process ends.
PATIENCE = timedelta(hours=48)


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Attributes:
        rank: Number of this process.
        world: Number of processes.
        device: Device on which this process computes.
    """

    rank: int
    world: int
    device: torch.device

    @classmethod
    def start(cls, device: str) -> Processes:
        """Joins the processes that torchrun started; without torchrun there is only this one.

        Args:
            device: `cpu` or `cuda`.

        Returns:
            This process among all.

        Raises:
            ConfigurationError: There are several processes and this torch does not support them, or the GPU does not exist.
        """
        world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
        if device != "cpu" and not torch.cuda.is_available():
            raise ConfigurationError("there is no GPU that torch can use here; use --device cpu, or `hybridvla doctor`")
        place = torch.device("cpu") if device == "cpu" else torch.device("cuda", local)
        if place.type == "cuda":
            torch.cuda.set_device(place)
        if world > 1:
            check_torch(torch.__version__)
            if not dist.is_initialized():
                dist.init_process_group("gloo" if place.type == "cpu" else "nccl", timeout=PATIENCE)
        return cls(int(os.environ.get("RANK", "0")), world, place)

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def stop(self) -> None:
        """Leaves the process group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def wait(self) -> None:
        """Waits until all processes have called it."""
        if self.world > 1:
            dist.barrier()

    def first_alone(self, work: Callable[[], object]) -> None:
        """Runs something on the first process while the others wait; all processes must call it.

        Args:
            work: The work to run.

        Raises:
            HybridVLAError: On the other processes, if the work failed on the first one, which raises its own error.
        """
        done = False
        try:
            if self.first:
                work()
            done = True
        finally:        # tell the others before an error propagates
            failed = self.sums({"failed": float(not done)})["failed"] > 0
        if failed:
            raise HybridVLAError(f"process {self.rank} ends because the first one failed; its message says why")

    def rows(self, batch: int) -> slice:
        """Returns this process's rows of a step's batch."""
        share = batch // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def sums(self, values: Mapping[str, float]) -> Dict[str, float]:
        """Returns each value summed over all processes, which must have the same names."""
        if self.world == 1:
            return dict(values)
        names = sorted(values)
        total = torch.tensor([values[name] for name in names], dtype=torch.float64).to(self.device)
        dist.all_reduce(total)
        return dict(zip(names, total.tolist()))

    def shard(self, module: nn.Module, blocks: Iterable[nn.Module], bfloat16: bool) -> nn.Module:
        """Shards the parameters of a module over all processes. Gradients are averaged in float32.

        Args:
            module: The whole model; it is moved to the device.
            blocks: Parts of it, each gathered when it runs.
            bfloat16: Whether to gather parameters in that type.

        Returns:
            The same module.
        """
        module.to(self.device)
        if self.world == 1:
            return module
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if bfloat16 else None, reduce_dtype=torch.float32,
                                      cast_forward_inputs=False)
        for block in [*blocks, module]:
            fully_shard(block, mp_policy=policy)
        return module

    def synchronise(self, module: nn.Module, needed: bool) -> None:
        """Sets whether the next backward pass adds up gradients over processes."""
        if self.world > 1:
            module.set_requires_gradient_sync(needed)  # type: ignore[operator]

    def settle(self, module: nn.Module) -> None:
        """Makes every process keep only its part of the parameters again, after forward passes without a backward one."""
        if self.world > 1:
            from torch.distributed.fsdp import FSDPModule

            for part in module.modules():
                if isinstance(part, FSDPModule):
                    part.reshard()


def check_torch(version: str) -> None:
    """Raises ConfigurationError if this torch cannot train on several processes."""
    parts: List[int] = [int(part) for part in version.split("+")[0].split(".")[:2]]
    if tuple(parts) < LEAST_TORCH:
        raise ConfigurationError(f"torch {version} trains in a single process; several need torch 2.6 (Python 3.9) or newer. "
                                 "Start `hybridvla train` without torchrun")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Gathers a sharded tensor from all processes, which must all call this; others stay as they are. Detached, on the CPU."""
    gathered: Any = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered.detach().cpu()
