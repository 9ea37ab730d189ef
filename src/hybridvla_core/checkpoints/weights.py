"""Weights of a checkpoint folder: one safetensors file, or shards with an index, read piece by piece."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

import torch
from safetensors import SafetensorError, safe_open

from hybridvla_core.checkpoints.stream import PIECE, all_finite, pieces
from hybridvla_core.errors import CheckpointError, few
from hybridvla_core.files import refuse_pointer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def shard_name(number: int, count: int) -> str:
    """Returns the name of a shard by Hugging Face's scheme, counted from 1."""
    return WEIGHTS if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def weight_files(folder: Path) -> List[str]:
    """Lists the safetensors files of a folder: the single one, or those its index names.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        Names of the files.

    Raises:
        CheckpointError: There are no files, there are both kinds, or the index cannot be read.
    """
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file() and index.is_file():
        raise CheckpointError(f"{folder}: holds both {WEIGHTS} and {INDEX}; leave only the one that belongs to it")
    if single.is_file():
        return [WEIGHTS]
    if not index.is_file():
        raise CheckpointError(f"{folder}: {WEIGHTS} missing, and no {INDEX}; copy the whole checkpoint folder again")
    names = sorted(set(read_index(index).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: {few(missing)} missing; copy the whole checkpoint folder again")
    return names


def read_index(path: Path) -> Mapping[str, str]:
    """Returns tensor name -> file name."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not table or not all(isinstance(v, str) and Path(v).name == v for v in table.values()):
            raise ValueError("weight_map must name files of this folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable index ({error}); copy it again") from error
    return table


class Weights:
    """All tensors of a folder's safetensors files, by name; values stay on disk until they are read."""

    def __init__(self, folder: Path, files: List[str]) -> None:
        self.folder = folder
        self._archives: List[safe_open] = []
        self._where: Dict[str, Tuple[safe_open, str]] = {}
        for name in files:
            refuse_pointer(folder / name)
            try:
                archive = safe_open(str(folder / name), framework="pt")
            except (SafetensorError, OSError, ValueError) as error:
                raise CheckpointError(f"{folder / name}: not a readable safetensors file ({error}); copy it again") from error
            self._archives.append(archive)
            for key in list(archive.keys()):
                if key in self._where:
                    raise CheckpointError(f"{folder / name}: {key} is also in another file; copy the folder again")
                self._where[key] = (archive, name)

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *details: object) -> None:
        self._archives, self._where = [], {}

    def shapes(self) -> Dict[str, Tuple[int, ...]]:
        return {name: tuple(archive.get_slice(name).get_shape()) for name, (archive, _) in self._where.items()}

    def file_of(self, name: str) -> Path:
        return self.folder / self._where[name][1]

    def tensor(self, name: str) -> torch.Tensor:
        """Returns a view of the mapped file, valid while this object is open."""
        archive, file = self._where[name]
        try:
            return archive.get_tensor(name)
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{self.folder / file}: {name} cannot be read ({error}); copy it again") from error


def misfit(found: Mapping[str, Tuple[int, ...]], expected: Mapping[str, Tuple[int, ...]]) -> str:
    """Returns the tensors that are missing, surplus or of the wrong shape, by name; empty if everything fits."""
    parts = []
    wrong = [f"{name} is {found[name]}, expected {expected[name]}"
             for name in expected if name in found and found[name] != expected[name]]
    for title, names in (("missing", sorted(set(expected) - set(found))), ("surplus", sorted(set(found) - set(expected))),
                         ("wrong shape", wrong)):
        if names:
            parts.append(f"{title}: {few(names)}")
    return "; ".join(parts)


def load_into(model: torch.nn.Module, folder: Path, files: List[str], kept: Sequence[str] = ()) -> None:
    """Fills a model in its own type, a piece at a time, so that there are never two copies of anything large.

    Args:
        model: Model that receives the weights.
        folder: Folder of the checkpoint.
        files: Names of its safetensors files.
        kept: Name prefixes of tensors that stay as the model has them, whatever the files hold.

    Raises:
        CheckpointError: Tensors are missing, surplus, of the wrong shape, or not finite; the message names them.
    """
    parameters: Dict[str, torch.Tensor] = {name: parameter for name, parameter in model.state_dict(keep_vars=True).items()
                                           if not name.startswith(tuple(kept))}
    with Weights(folder, files) as weights, torch.no_grad():
        found = {name: shape for name, shape in weights.shapes().items() if not name.startswith(tuple(kept))}
        problem = misfit(found, {name: tuple(p.shape) for name, p in parameters.items()})
        if problem:
            raise CheckpointError(f"{folder / files[0]}: the tensors do not fit config.json; {problem}")
        for name, parameter in parameters.items():
            tensor = weights.tensor(name)
            if not tensor.is_floating_point():
                raise CheckpointError(f"{weights.file_of(name)}: {name} is stored as {tensor.dtype}; weights must be "
                                      "floating-point numbers")
            for piece, target in zip(pieces(tensor), parameter.detach().view(-1).split(PIECE)):
                if not all_finite(piece):
                    raise CheckpointError(f"{weights.file_of(name)}: {name} holds values that are not finite")
                target.copy_(piece)
