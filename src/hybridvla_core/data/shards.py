"""Demonstration shards of the simulated rig: state-sampled images with the expert's label for every instruction.

A shard is an uncompressed `.npz` written by `hybridvla_sim.tasks.blocks.demonstrations` or by rollouts of a policy under
training (DAgger).
"""
from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Dict, Iterable, List, Sequence, Union

import numpy as np

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import refuse_pointer

#: array -> trailing shape without the sample axis; None = any size.
FIELDS = {
    "images": (None, None, 3),  # uint8 RGB
    "seg": (None, None),  # uint8 class map: 0 other, 1-4 blocks, 5-8 pads, 9 robot
    "block_pos": (4, 3),  # m, base frame
    "block_yaw": (4,),  # rad
    "pad_pos": (4, 2),  # m
    "state": (None,),  # physical units, state convention of the checkpoint
    "target": (16, None),  # expert's action for instruction block*4+pad, action convention of the checkpoint
    "phase": (16,),  # expert's phase index
}
#: array -> kinds of numbers it may hold, as numpy names them; all others may be floating-point numbers too.
KINDS = {"images": "u", "seg": "iu", "phase": "iu"}


class ShardSet:
    """All shards of a folder in memory, as one table of N samples; grows by `append`."""

    def __init__(self, paths: Sequence[Union[str, Path]]) -> None:
        if not paths:
            raise HybridVLAError("no data shards given; write some with"
                                 " `python -m hybridvla_sim.tasks.blocks.demonstrations` first")
        self._parts: List[Dict[str, np.ndarray]] = []
        self.offsets = [0]
        for path in paths:
            self.append(path)

    @classmethod
    def from_folder(cls, folder: Union[str, Path]) -> ShardSet:
        paths = sorted(Path(folder).glob("*.npz"))
        if not paths:
            raise HybridVLAError(f"{folder}: no .npz shards; write some with"
                                 " `python -m hybridvla_sim.tasks.blocks.demonstrations`")
        return cls(paths)

    def append(self, path: Union[str, Path]) -> None:
        """Add one shard.

        Raises:
            HybridVLAError: naming the file, for one that is not whole, and for an array that is missing, of another shape or
                type than it should be, or of another length than the others.
        """
        refuse_pointer(path)
        try:
            part = _arrays(path)
        except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            raise HybridVLAError(f"{path}: not a whole shard ({type(error).__name__}: {error}); write it again") from error
        self._parts.append(part)
        self.offsets.append(self.offsets[-1] + len(part["state"]))

    def __len__(self) -> int:
        return self.offsets[-1]

    def column(self, name: str) -> np.ndarray:
        """One array over all samples (copied)."""
        return np.concatenate([part[name] for part in self._parts])

    def take(self, indices: np.ndarray, names: Iterable[str] = tuple(FIELDS)) -> Dict[str, np.ndarray]:
        """The given samples of the given arrays, each (len(indices), ...)."""
        part_of = np.searchsorted(self.offsets, indices, side="right") - 1
        rows = indices - np.asarray(self.offsets)[part_of]
        return {name: np.stack([self._parts[p][name][r] for p, r in zip(part_of, rows)]) for name in names}


def _arrays(path: Union[str, Path]) -> Dict[str, np.ndarray]:
    """The arrays of a shard's file, held against FIELDS and each other."""
    part: Dict[str, np.ndarray] = {}
    with np.load(str(path)) as archive:
        for name, shape in FIELDS.items():
            if name not in archive:
                raise HybridVLAError(f"{path}: array {name!r} is missing; write the shard again")
            array = archive[name]
            if array.ndim != len(shape) + 1 or any(want is not None and want != have
                                                   for want, have in zip(shape, array.shape[1:])):
                raise HybridVLAError(f"{path}: array {name!r} has shape {array.shape}, expected (N, {shape})")
            kinds = KINDS.get(name, "fiu")
            if array.dtype.kind not in kinds or (name == "images" and array.dtype != np.uint8):
                raise HybridVLAError(f"{path}: array {name!r} is {array.dtype}; images are uint8 from 0 to 255, classes and "
                                     "phases whole numbers, all others numbers")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise HybridVLAError(f"{path}: array {name!r} holds values that are not finite; write the shard again")
            part[name] = array
    lengths = {name: len(array) for name, array in part.items()}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise HybridVLAError(f"{path}: its arrays have different lengths ({told}); write the shard again")
    return part
