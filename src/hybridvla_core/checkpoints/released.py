"""Released and Prismatic run folders: `config.json`, `dataset_statistics.json`, `checkpoints/*.pt` (offline only, never
on the rig), under our parameter names."""
from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, Tuple

import torch

from hybridvla_core.checkpoints.foreign.savers import Saved, module_problem, read_modules
from hybridvla_core.checkpoints.pickle_scan import check_archive
from hybridvla_core.checkpoints.weights import misfit
from hybridvla_core.configuration import read_mapping
from hybridvla_core.errors import CheckpointError, few
from hybridvla_core.files import refuse_pointer
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.vision import MODULE_NAMES

if TYPE_CHECKING:
    from hybridvla_core.model.hybridvla import HybridVLA

#: Released module -> prefix in our model; `llm_backbone` already says `llm.`.
BASE_PREFIXES = {"vision_backbone": "vision_backbone.", "llm_backbone": "", "projector": "projector."}
HEAD_PREFIXES = {name: f"{name}." for name in ("x_embedder", "t_embedder", "final_layer", "proprio_embedder")}
PREFIXES = {**BASE_PREFIXES, **HEAD_PREFIXES}
HEADS = tuple(sorted(HEAD_PREFIXES))


def find_weights(run: Path) -> Path:
    """Returns the one `.pt` of a run folder, or `run` itself if it is a file."""
    if run.is_file():
        return run
    found = sorted((run / "checkpoints").glob("*.pt"))
    if len(found) != 1:
        names = f" ({few(path.name for path in found)})" if found else ""
        raise CheckpointError(f"{run / 'checkpoints'}: expected one .pt file, found {len(found)}{names}; leave only the one "
                              "to read, or name it instead of the folder")
    return found[0]


def read_released(path: Path) -> Dict[str, torch.Tensor]:
    """Returns the tensors of `read_saved`."""
    return read_saved(path)[0]


def read_saved(path: Path, entry: Optional[str] = None) -> Tuple[Dict[str, torch.Tensor], Saved]:
    """Reads all tensors of a `.pt`, mapped from the file; nothing in it is executed.

    A HybridVLA run has all seven modules, a Prismatic base only the first three.

    Args:
        path: Path of the file.
        entry: Name of the dictionary with the weights; None looks for the usual ones.

    Returns:
        The tensors under our names, and the content of the file.

    Raises:
        CheckpointError: The file is incomplete, or holds anything but tensors, or other modules.
    """
    refuse_pointer(path)
    check_archive(path)
    try:
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many types here; all mean that the file is not usable
        raise CheckpointError(f"{path}: not a readable checkpoint of tensors ({type(error).__name__}); "
                              "copy it again, and do not trust a file that needs unpickling") from error
    saved = read_modules(content, PREFIXES, str(path), entry)
    expected = PREFIXES if set(saved.modules) & set(HEAD_PREFIXES) else BASE_PREFIXES
    problem = module_problem(saved.modules, expected, PREFIXES)
    if problem:
        raise CheckpointError(f"{path}: {problem}")
    return {PREFIXES[module] + name: tensor for module, named in saved.modules.items() for name, tensor in named.items()}, saved


def used_tensors(tensors: Mapping[str, torch.Tensor], config: ModelConfig) -> Dict[str, torch.Tensor]:
    """Drops what no path uses: each tower's last block, final norm and pooling, and rotary tables, which are computed.

    Args:
        tensors: Tensors of the source.
        config: The architecture.

    Returns:
        The tensors that are used.

    Raises:
        CheckpointError: A tower with a final norm lacks the block of the last number: its real last one would be used.
    """
    dropped = [r".*\.rotary_emb\.inv_freq$"]
    for tower in config.towers:
        name = f"vision_backbone.{MODULE_NAMES[tower.kind]}."
        last = f"{name}blocks.{tower.depth - 1}."
        if f"{name}norm.weight" in tensors and not any(each.startswith(last) for each in tensors):
            raise CheckpointError(f"depth of {tower.kind} is {tower.depth}, and the source has no {last[:-1]}; give the number "
                                  "of its blocks, the unused last one included")
        stem = re.escape(name)
        dropped.append(rf"{stem}(norm\.|attn_pool\.|fc_norm\.|head\.|blocks\.{tower.depth - 1}\.)")
    pattern = re.compile("|".join(dropped))
    return {name: tensor for name, tensor in tensors.items() if not pattern.match(name)}


def check_names(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuses tensors that are missing, surplus or of the wrong shape, by name."""
    problem = misfit(*({name: tuple(t.shape) for name, t in side.items()} for side in (tensors, expected)))
    if problem:
        raise CheckpointError(f"{where}: the tensors do not fit the architecture; {problem}")


def load_released(run: Path, dims_file: Path, views: int = 1, chunk: int = 1, final_norm: str = "variance"
                  ) -> Tuple[HybridVLA, Dict[str, Any]]:
    """Returns a released run as our float32 model in eval mode, with its `dataset_statistics.json`."""
    from hybridvla_core.checkpoints.dims import config_from_dims
    from hybridvla_core.model.hybridvla import HybridVLA

    config = config_from_dims(read_mapping(dims_file), views, chunk, final_norm, str(dims_file))
    path = find_weights(run)
    tensors = used_tensors(read_released(path), config)
    model = HybridVLA(config)
    check_names(tensors, model.state_dict(), str(path))
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval(), dict(read_mapping(run / "dataset_statistics.json"))
