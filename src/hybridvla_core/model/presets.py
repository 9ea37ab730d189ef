"""Named architectures: the paper's two at their true dimensions, one for timing, one that trains on a laptop."""
from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict, Tuple

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.model.config import DecoderConfig, ModelConfig, SequenceConfig, TowerConfig

DINO_MEAN, DINO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

LLAMA_SEQUENCE = SequenceConfig(
    bos=1, eos=2, pad=32000, bod=32001, eod=32002, before_bod=(29871,), after_eod=(29871,), action_vocab_end=32000,
    need_to_sub=0, prompt="In: What action should the robot take to {instruction}?\nOut:", lowercase=True)
PHI_SEQUENCE = SequenceConfig(
    bos=50256, eos=50256, pad=50295, bod=50296, eod=50297, before_bod=(220,), after_eod=(), action_vocab_end=50257,
    need_to_sub=0, prompt="<|endoftext|>Input: What action should the robot take to {instruction}?\nOutput:",
    lowercase=True)
#: 512 word ids, 256 action ids, then the three markers.
TINY_SEQUENCE = SequenceConfig(
    bos=1, eos=2, pad=768, bod=769, eod=770, before_bod=(), after_eod=(), action_vocab_end=768, need_to_sub=0,
    prompt="{instruction}", lowercase=True)


def dino(width: int, depth: int, heads: int, mlp: int, size: int = 224, patch: int = 14) -> TowerConfig:
    return TowerConfig("dino", size, patch, width, depth, heads, mlp, DINO_MEAN, DINO_STD)


def siglip(width: int, depth: int, heads: int, mlp: int, size: int = 224, patch: int = 14) -> TowerConfig:
    return TowerConfig("siglip", size, patch, width, depth, heads, mlp, HALF, HALF)


def llama(hidden: int, layers: int, heads: int, intermediate: int, rows: int = 32064) -> DecoderConfig:
    return DecoderConfig("llama", hidden, layers, heads, heads, intermediate, rows, 1e-5, 10000.0, hidden // heads)


def hybridvla_7b() -> ModelConfig:
    """Returns DINOv2 ViT-L/14 with registers, SigLIP So400m/14, Llama-2 7B."""
    return ModelConfig(
        towers=(dino(1024, 24, 16, 4096), siglip(1152, 27, 16, 4304)), tower_norm=False,
        projector=(4 * 2176, 4096, 4096), projector_norm=False, decoder=llama(4096, 32, 32, 11008),
        sequence=LLAMA_SEQUENCE, action_dim=7, chunk=1, views=1, bins=256, final_norm="variance")


def hybridvla_2_7b() -> ModelConfig:
    """Returns CLIP ViT-L/14, Phi-2."""
    decoder = DecoderConfig("phi", 2560, 32, 32, 32, 10240, 50304, 1e-5, 10000.0, 32)
    clip = TowerConfig("clip", 224, 14, 1024, 24, 16, 4096, CLIP_MEAN, CLIP_STD)
    return ModelConfig(
        towers=(clip,), tower_norm=False, projector=(2560, 2560), projector_norm=False, decoder=decoder,
        sequence=PHI_SEQUENCE, action_dim=7, chunk=1, views=1, bins=256, final_norm="variance")


def small_100m() -> ModelConfig:
    """Returns a model of about 106 M parameters: large enough to compare the speed of the paths on a CPU."""
    return ModelConfig(
        towers=(dino(320, 6, 5, 1280), siglip(384, 6, 6, 1536)), tower_norm=False,
        projector=(4 * 704, 640, 640), projector_norm=False, decoder=llama(640, 8, 10, 1728),
        sequence=LLAMA_SEQUENCE, action_dim=7, chunk=1, views=1, bins=256, final_norm="variance")


def tiny() -> ModelConfig:
    """Returns a model of the same classes at a size that two CPU cores train in about an hour."""
    return ModelConfig(
        towers=(dino(160, 5, 5, 640, 128, 16), siglip(160, 5, 5, 640, 128, 16)), tower_norm=True,
        projector=(640, 256, 256), projector_norm=True, decoder=llama(256, 6, 4, 688, 832),
        sequence=TINY_SEQUENCE, action_dim=7, chunk=1, views=1, bins=256, final_norm="variance")


def ablation() -> ModelConfig:
    """Returns a model of the same classes with about 2 M parameters: many are trained and compared."""
    return ModelConfig(
        towers=(dino(96, 3, 3, 384, 128, 16), siglip(96, 3, 3, 384, 128, 16)), tower_norm=True,
        projector=(384, 144, 144), projector_norm=True, decoder=llama(144, 4, 4, 384, 832),
        sequence=TINY_SEQUENCE, action_dim=7, chunk=1, views=1, bins=256, final_norm="variance")


PRESETS: Dict[str, Callable[[], ModelConfig]] = {
    "hybridvla-7b": hybridvla_7b, "hybridvla-2.7b": hybridvla_2_7b, "small-100m": small_100m, "tiny": tiny,
    "ablation": ablation}


def preset(name: str, **changes: Any) -> ModelConfig:
    """Returns a preset by name, with fields changed (`views=3`, `action_dim=14`, `chunk=4`, ...)."""
    if name not in PRESETS:
        raise ConfigurationError(f"no preset {name!r}; use one of {', '.join(PRESETS)}")
    return replace(PRESETS[name](), **changes)


def preset_names() -> Tuple[str, ...]:
    return tuple(PRESETS)
