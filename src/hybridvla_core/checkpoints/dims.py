"""The architecture of a source, from its registry name or from a file that names every dimension."""
from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Mapping, Optional

from hybridvla_core.errors import CheckpointError, ConfigurationError
from hybridvla_core.model import presets
from hybridvla_core.model.config import DecoderConfig, ModelConfig, SequenceConfig, TowerConfig

#: Name in the registries of the released code and of Prismatic -> our preset.
REGISTRY = {"prism-dinosiglip-224px+7b": "hybridvla-7b", "phi-2+3b": "hybridvla-2.7b"}
PIXELS = {"dino": (presets.DINO_MEAN, presets.DINO_STD), "siglip": (presets.HALF, presets.HALF),
          "clip": (presets.CLIP_MEAN, presets.CLIP_STD)}


def config_from_name(name: Optional[str], views: int, chunk: int, action_dim: int, final_norm: str) -> ModelConfig:
    """Returns the preset of a registry name; raises CheckpointError for an unknown name."""
    if name not in REGISTRY:
        raise CheckpointError(f"the dimensions of {name!r} are not known (known: {', '.join(REGISTRY)}); give them with "
                              "--dims FILE")
    return presets.preset(REGISTRY[name], views=views, chunk=chunk, action_dim=action_dim, final_norm=final_norm)


def config_from_dims(dims: Mapping[str, Any], views: int, chunk: int, final_norm: str, where: str = "dims") -> ModelConfig:
    """Builds the architecture from a file of dimensions; docs/fidelity.md shows an example.

    Args:
        dims: `vision`, `llm`, `projector`, `action_dim` and, if they differ from the family's usual ones, `special_tokens`
            and `need_to_sub`.
        views: Number of cameras.
        chunk: Actions predicted at once (K).
        final_norm: Formula of the last norm: `variance` or `mean_square`.
        where: Name of the source in messages.

    Returns:
        The architecture.

    Raises:
        CheckpointError: A key is missing or of the wrong kind; the message names it.
    """
    try:
        return _config_from_dims(dims, views, chunk, final_norm)
    except ConfigurationError as error:
        raise CheckpointError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{where}: {type(error).__name__} {error}; name every dimension as docs/fidelity.md "
                              "shows") from error


def _config_from_dims(dims: Mapping[str, Any], views: int, chunk: int, final_norm: str) -> ModelConfig:
    towers = tuple(
        TowerConfig(kind, tower["img_size"], tower["patch_size"], tower["embed_dim"], tower["depth"],
                    tower["num_heads"], tower["mlp_hidden"], *PIXELS[kind])
        for kind, tower in dims["vision"].items())
    llm = dims["llm"]
    head = llm["hidden_size"] // llm["num_attention_heads"]
    family = llm["family"]
    norm_eps = llm["rms_norm_eps"] if family == "llama" else llm["layer_norm_eps"]
    decoder = DecoderConfig(
        family=family, hidden=llm["hidden_size"], layers=llm["num_hidden_layers"],
        heads=llm["num_attention_heads"], kv_heads=llm["num_key_value_heads"], intermediate=llm["intermediate_size"],
        vocab_rows=llm["vocab_size"], norm_eps=float(norm_eps), rope_theta=float(llm["rope_theta"]),
        rotary_dim=int(llm.get("rotary_dim") or head * llm.get("partial_rotary_factor", 1.0)))
    shapes = dims["projector"]["linear_shapes"]
    layers = sorted((name for name in shapes if name.endswith(".weight")), key=lambda name: int(name.split(".")[-2]))
    widths = tuple(int(shapes[name][0]) for name in layers)
    sequence = _sequence(dims, presets.LLAMA_SEQUENCE if family == "llama" else presets.PHI_SEQUENCE)
    return ModelConfig(towers=towers, tower_norm=False, projector=widths, projector_norm=False, decoder=decoder,
                       sequence=sequence, action_dim=dims["action_dim"], chunk=chunk, views=views, bins=256,
                       final_norm=final_norm)


def _sequence(dims: Mapping[str, Any], usual: SequenceConfig) -> SequenceConfig:
    special = dims.get("special_tokens", {})
    changes: Dict[str, Any] = {ours: int(special[theirs]) for ours, theirs in (
        ("bos", "bos"), ("eos", "eos"), ("pad", "pad"), ("bod", "bod"), ("eod", "eod"), ("action_vocab_end", "action_vocab_size"))
        if theirs in special}
    if "blank" in special:
        blank = (int(special["blank"]),)
        changes.update(before_bod=blank, after_eod=blank if usual.after_eod else ())
    return replace(usual, need_to_sub=int(dims.get("need_to_sub", 0)), **changes)
