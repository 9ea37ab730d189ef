"""Released run folders: `config.json`, `dataset_statistics.json`, `checkpoints/*.pt` (offline only, never on the rig)."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple

import torch

from hybridvla_core.configuration import read_mapping
from hybridvla_core.errors import CheckpointError
from hybridvla_core.model import presets
from hybridvla_core.model.config import DecoderConfig, ModelConfig, TowerConfig
from hybridvla_core.model.vision import MODULE_NAMES

#: Released module -> prefix in our model.
PREFIXES = {"vision_backbone": "vision_backbone.", "llm_backbone": "", "projector": "projector.",
            "x_embedder": "x_embedder.", "t_embedder": "t_embedder.", "final_layer": "final_layer.",
            "proprio_embedder": "proprio_embedder."}
STATISTICS = {"dino": (presets.DINO_MEAN, presets.DINO_STD), "siglip": (presets.HALF, presets.HALF),
              "clip": (presets.CLIP_MEAN, presets.CLIP_STD)}


def config_from_dims(dims: Mapping[str, Any], views: int, chunk: int, final_norm: str) -> ModelConfig:
    """The architecture from a `dims.json`, which names every dimension (the released `config.json` does not)."""
    towers = tuple(
        TowerConfig(kind, tower["img_size"], tower["patch_size"], tower["embed_dim"], tower["depth"],
                    tower["num_heads"], tower["mlp_hidden"], *STATISTICS[kind])
        for kind, tower in dims["vision"].items())
    llm = dims["llm"]
    head = llm["hidden_size"] // llm["num_attention_heads"]
    decoder = DecoderConfig(
        family=llm["family"], hidden=llm["hidden_size"], layers=llm["num_hidden_layers"],
        heads=llm["num_attention_heads"], kv_heads=llm["num_key_value_heads"], intermediate=llm["intermediate_size"],
        vocab_rows=llm["vocab_size"], norm_eps=float(llm.get("rms_norm_eps") or llm.get("layer_norm_eps")),
        rope_theta=float(llm["rope_theta"]), rotary_dim=int(llm.get("rotary_dim", head)))
    shapes = dims["projector"]["linear_shapes"]
    widths = tuple(shape[0] for name, shape in sorted(shapes.items()) if name.endswith("weight"))
    sequence = presets.LLAMA_SEQUENCE if llm["family"] == "llama" else presets.PHI_SEQUENCE
    return ModelConfig(towers=towers, tower_norm=False, projector=widths, projector_norm=False, decoder=decoder,
                       sequence=sequence, action_dim=dims["action_dim"], chunk=chunk, views=views, bins=256,
                       final_norm=final_norm)


def find_weights(run: Path) -> Path:
    """The one `.pt` of a run folder."""
    found = sorted((run / "checkpoints").glob("*.pt"))
    if len(found) != 1:
        raise CheckpointError(f"{run / 'checkpoints'}: expected one .pt file, found {len(found)}; leave only the one "
                              "to read")
    return found[0]


def read_released(path: Path) -> Dict[str, torch.Tensor]:
    """All tensors of a released `.pt` under our names; nothing in it is executed (`weights_only`).

    Raises CheckpointError for a file that is not a released checkpoint, or holds anything but tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many types here; all mean that the file is not usable
        raise CheckpointError(f"{path}: not a readable checkpoint of tensors ({type(error).__name__}); "
                              "copy it again, and do not trust a file that needs unpickling") from error
    modules = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(modules, Mapping):
        raise CheckpointError(f"{path}: no 'model' entry; this is not a released HybridVLA checkpoint")
    unknown = sorted(set(modules) - set(PREFIXES))
    missing = sorted(set(PREFIXES) - set(modules))
    if unknown or missing:
        raise CheckpointError(f"{path}: modules missing: {missing or 'none'}; unknown: {unknown or 'none'}")
    return {rename(module, name): tensor for module, tensors in modules.items() for name, tensor in tensors.items()}


def rename(module: str, name: str) -> str:
    """A released parameter's name in our model (`llm_backbone` already says `llm.`)."""
    return PREFIXES[module] + name


def used_tensors(tensors: Mapping[str, torch.Tensor], config: ModelConfig) -> Dict[str, torch.Tensor]:
    """Without what no path uses: each tower's last block, final norm and pooling."""
    dropped = []
    for tower in config.towers:
        stem = re.escape(f"vision_backbone.{MODULE_NAMES[tower.kind]}.")
        dropped.append(rf"{stem}(norm\.|attn_pool\.|fc_norm\.|head\.|blocks\.{tower.depth - 1}\.)")
    pattern = re.compile("|".join(dropped))
    return {name: tensor for name, tensor in tensors.items() if not pattern.match(name)}


def check_names(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse tensors that are missing, surplus or of the wrong shape, by name."""
    missing, surplus = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    wrong = [f"{name} is {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}"
             for name in expected if name in tensors and tensors[name].shape != expected[name].shape]
    problems = []
    for title, names in (("missing", missing), ("surplus", surplus), ("wrong shape", wrong)):
        if names:
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            problems.append(f"{title}: {', '.join(names[:4])}{more}")
    if problems:
        raise CheckpointError(f"{where}: the tensors do not fit the architecture; {'; '.join(problems)}")


def load_released(run: Path, dims_file: Path, views: int = 1, chunk: int = 1, final_norm: str = "variance"
                  ) -> Tuple[torch.nn.Module, Dict[str, Any]]:
    """A released run as our float32 model in eval mode, with its `dataset_statistics.json`."""
    from hybridvla_core.model.hybridvla import HybridVLA

    config = config_from_dims(read_mapping(dims_file), views, chunk, final_norm)
    path = find_weights(run)
    tensors = used_tensors(read_released(path), config)
    model = HybridVLA(config)
    check_names(tensors, model.state_dict(), str(path))
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval(), dict(read_mapping(run / "dataset_statistics.json"))
