"""Small models, their tokenizers, and run folders in the layouts of the released code and of Prismatic, made on the spot."""
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from hybridvla_core.checkpoints.dims import config_from_dims
from hybridvla_core.checkpoints.released import PREFIXES
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.presets import dino, llama, preset, siglip

SCALE = {"q01": [-1.0] * 6 + [0.0], "q99": [1.0] * 6 + [1.0], "mask": [True] * 6 + [False]}
CONVENTION = ["--translation", "delta_base_frame", "--rotation", "absolute_euler_xyz", "--rotation-reference", "0,0,0,1",
              "--gripper-sense", "one_is_open", "--delta-base", "commanded", "--action-period", "0", "--state-source",
              "last_command"]
#: Ids below VOCABULARY are text and, at their end, actions; then come PAD, BOD and EOD.
ROWS, VOCABULARY = 768, 700


def tiniest(**changes: Any) -> ModelConfig:
    """Return a model configuration of a few thousand parameters around the tiny preset's tokenizer."""
    towers = (dino(16, 2, 2, 32, 32, 16), siglip(16, 2, 2, 32, 32, 16))
    config = replace(preset("tiny"), towers=towers, projector=(32, 16, 16), decoder=llama(16, 1, 2, 32, 832))
    return replace(config, **changes)


def llama_tokenizer(size: int = VOCABULARY) -> Tokenizer:
    """Return a tokenizer like Llama-2's: SentencePiece blanks, byte fallback, BOS from a post-processor; ids below `size`."""
    words = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + ["\u2581"]
    words += [chr(code) for code in range(33, 127)]
    merges = [("\u2581", "t"), ("h", "e"), ("\u2581t", "he"), ("O", "u"), ("Ou", "t")]
    words += ["\u2581t", "he", "\u2581the", "Ou", "Out"]
    assert len(words) <= size - 256
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges, unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def codegen_tokenizer() -> Tokenizer:
    """Return a tokenizer like CodeGen's: byte-level BPE, end of text at id 256, runs of blanks as added tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + ["<|endoftext|>"]
    merges = [("\u0120", "t"), ("h", "e"), ("\u0120t", "he")]
    words += ["\u0120t", "he", "\u0120the"]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>")])
    tokenizer.add_tokens([AddedToken(" " * count) for count in range(4, 1, -1)])
    return tokenizer


def dims_of(family: str, action_dim: int = 7, hidden: int = 32, rows: int = ROWS, kv_heads: int = 2) -> Dict[str, Any]:
    """Return the contents of a file of dimensions as `--dims` expects it."""
    def tower(heads: int) -> Dict[str, Any]:
        return {"img_size": 28, "patch_size": 14, "embed_dim": 16, "depth": 3, "num_heads": heads, "mlp_hidden": 24}

    fused = family == "llama"
    blank = llama_tokenizer().token_to_id("\u2581") if fused else codegen_tokenizer().token_to_id("\u0120")
    widths = [(128, 32), (hidden, 128), (hidden, hidden)] if fused else [(hidden, 16), (hidden, hidden)]
    shapes = {f"projector.{2 * i}.weight": list(shape) for i, shape in enumerate(widths)}
    shapes.update({f"projector.{2 * i}.bias": [shape[0]] for i, shape in enumerate(widths)})
    llm = {"family": family, "hidden_size": hidden, "intermediate_size": 48, "num_hidden_layers": 2,
           "num_attention_heads": 4, "num_key_value_heads": kv_heads if fused else 4, "vocab_size": rows,
           "rope_theta": 10000.0}
    llm.update({"rms_norm_eps": 1e-5} if fused else {"layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5})
    return {"action_dim": action_dim, "vision": {"dino": tower(2), "siglip": tower(4)} if fused else {"clip": tower(2)},
            "llm": llm, "projector": {"linear_shapes": shapes}, "need_to_sub": 0,
            "special_tokens": {"bos": 1 if fused else 256, "eos": 2 if fused else 256, "pad": VOCABULARY,
                               "bod": VOCABULARY + 1, "eod": VOCABULARY + 2, "blank": blank,
                               "action_vocab_size": VOCABULARY}}


def released_run(folder: Path, family: str = "llama", action_dim: int = 7, chunk: int = 1, **sizes: Any) -> HybridVLA:
    """Write `run/`, `dims.json` and `tokenizer.json` under `folder`; returns the model that the run holds."""
    dims = dims_of(family, action_dim, **sizes)
    config = config_from_dims(dims, 1, chunk, "variance")
    torch.manual_seed(5)
    model = HybridVLA(config)
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    save_pt(run / "checkpoints" / "step-1.pt", modules_of(model))
    (run / "config.json").write_text(json.dumps({
        "action_dim": action_dim, "future_action_window_size": chunk - 1, "need_to_sub": 0,
        "vla": {"base_vlm": "prism-dinosiglip-224px+7b" if family == "llama" else "phi-2+3b"}}))
    arms = {key: value * (action_dim // 7) for key, value in SCALE.items()}
    (run / "dataset_statistics.json").write_text(json.dumps({"rlbench": {"action": arms, "proprio": arms}}))
    (folder / "dims.json").write_text(json.dumps(dims))
    tokenizer = llama_tokenizer() if family == "llama" else codegen_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def modules_of(model: HybridVLA) -> Dict[str, Dict[str, torch.Tensor]]:
    """Return the state as released: module -> name -> tensor in float16, with the unused last blocks of the towers."""
    modules: Dict[str, Dict[str, torch.Tensor]] = {name: {} for name in PREFIXES}
    for name, tensor in model.state_dict().items():
        module = "llm_backbone" if name.startswith("llm.") else name.split(".")[0]
        modules[module][name[len(PREFIXES[module]):]] = tensor.half()
    for name, tensor in list(modules["vision_backbone"].items()):
        if ".blocks.1." in name:
            modules["vision_backbone"][name.replace(".blocks.1.", ".blocks.2.")] = tensor.clone()
    return modules


def save_pt(path: Path, modules: Dict[str, Dict[str, torch.Tensor]]) -> None:
    torch.save({"model": modules}, str(path))


def convert_arguments(folder: Path, out: Path, cameras: str = "front", arms: str = "arm") -> list:
    """Return the arguments of `hybridvla convert` for a folder of `released_run`."""
    return ["convert", str(folder / "run"), str(out), "--camera-order", cameras, "--arms", arms, "--final-norm", "variance",
            "--dims", str(folder / "dims.json"), "--tokenizer", str(folder / "tokenizer.json"), *CONVENTION]


def changed(folder: Path, change: Any) -> None:
    """Apply `change` to the modules of a run's `.pt`."""
    path = folder / "run" / "checkpoints" / "step-1.pt"
    modules = torch.load(str(path), weights_only=True)["model"]
    change(modules)
    save_pt(path, modules)
