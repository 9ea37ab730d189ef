"""Several hundred damaged and edited checkpoint folders: each is refused in one sentence, or harmless.

There are two kinds. Damage leaves the manifest as it was: nothing that changes a byte's meaning may load. Edits rewrite the
manifest as a careless person might: they are refused, or load exactly what `config.json` now says.
"""
from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import SCALE, tiniest

from hybridvla_core.checkpoints.config import CheckpointConfig, EnsembleConfig
from hybridvla_core.checkpoints.convert import _write_weights
from hybridvla_core.checkpoints.format import save_checkpoint, write_manifest
from hybridvla_core.checkpoints.stream import plan_shards
from hybridvla_core.contracts import Observation
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.policy.predictor import Policy
from hybridvla_core.training.tokenizer import build_tiny_tokenizer
from hybridvla_core.transforms.conventions import ActionConvention

DAMAGES, EDITS = 260, 300
JSON_FILES = ("config.json", "dataset_statistics.json", "tokenizer.json", "MANIFEST.json")
ODD = (None, True, "", "x", -1, 0, 1, 2, 3, 1e30, float("nan"), float("inf"), -0.5, 0.5, 10 ** 12, [], [1], {}, {"a": 1})


def build(folder: Path, sharded: bool) -> Path:
    torch.manual_seed(1)
    config = CheckpointConfig(
        format=1, model=tiniest(), cameras=("front",), image_strategy="resize-naive", ddim_steps=2,
        convention=ActionConvention(("arm",), "delta_base_frame", "absolute_euler_xyz", (1.0, 0.0, 0.0, 0.0), "one_is_open",
                                    "measured", 0.0, "measured"),
        ensemble=EnsembleConfig.paper(), autoregressive_condition="denoised",
        statistics_key="set")
    tensors = HybridVLA(config.model).initialise(0.2).state_dict()
    statistics = {"set": {"action": SCALE, "proprio": SCALE}}
    save_checkpoint(folder, tensors, config, statistics, build_tiny_tokenizer().to_str(), {"made": "by a test"}, torch.float16)
    if sharded:
        (folder / "model.safetensors").unlink()
        _write_weights(folder, tensors, plan_shards(tensors, torch.float16, 20_000), torch.float16, lambda count: None)
        write_manifest(folder, {"made": "by a test"})
        assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def outcome(folder: Path):
    """Return ('refused', sentence) or ('loaded', configuration, numbers of one prediction)."""
    try:
        policy = Policy.from_checkpoint(folder)
        image = np.full((20, 20, 3), 90, dtype=np.uint8)
        prediction = policy.predict(Observation(dict.fromkeys(policy.cameras, image), "put the red block on the pad",
                                                np.zeros(policy.config.model.action_dim), 5))
    except HybridVLAError as error:
        sentence = str(error)
        assert sentence and "Traceback" not in sentence
        return ("refused", sentence)
    return ("loaded", policy.config, [prediction.diffusion.tobytes(), prediction.autoregressive.tobytes()])


@pytest.fixture(scope="module", params=[False, True], ids=["one file", "shards"])
def original(request, tmp_path_factory):
    folder = build(tmp_path_factory.mktemp("original") / "checkpoint", request.param)
    result = outcome(folder)
    assert result[0] == "loaded"
    return folder, result


def damage(folder: Path, rng: random.Random) -> str:
    """Change a file once, as a disk, a copy or a person might."""
    names = sorted(path.name for path in folder.iterdir())
    name = rng.choice(names)
    path = folder / name
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    kind = rng.choice(("bit", "bit", "bit", "byte", "cut", "longer", "zeros", "insert", "gone", "renamed", "swapped", "empty"))
    if kind == "bit":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        content[at] = (content[at] + rng.randrange(1, 256)) % 256
    elif kind == "cut":
        del content[at:]
    elif kind == "longer":
        content += bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40)))
    elif kind == "zeros":
        content[at:at + 64] = bytes(min(64, len(content) - at))
    elif kind == "insert":
        content[at:at] = b"}"
    elif kind == "empty":
        content = bytearray()
    if kind in ("gone", "renamed"):
        path.unlink() if kind == "gone" else path.rename(folder / f"{name}.old")
    elif kind == "swapped":
        other = folder / rng.choice([n for n in names if n != name])
        path.write_bytes(other.read_bytes())
        other.write_bytes(bytes(content))
    else:
        path.write_bytes(bytes(content))
    return f"{kind} in {name} at {at}"


def test_damaged_folders(original, tmp_path):
    folder, expected = original
    refusals = 0
    for seed in range(DAMAGES):
        copy = tmp_path / str(seed)
        shutil.copytree(str(folder), str(copy))
        what = damage(copy, random.Random(seed))
        result = outcome(copy)
        assert result[0] == "refused" or result == expected, f"{what} loaded something else"
        refusals += result[0] == "refused"
        shutil.rmtree(str(copy))
    # Only meaningless changes load: a blank in the manifest, zeros over zeros.
    assert refusals >= 0.97 * DAMAGES


def edit_json(folder: Path, rng: random.Random) -> str:
    """Replace, remove or add one value anywhere in a JSON file."""
    name = rng.choice(("config.json", "config.json", "config.json", "dataset_statistics.json", "tokenizer.json"))
    data = json.loads((folder / name).read_text())
    node, trail = data, []
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = rng.choice(keys[:12] if name == "tokenizer.json" else keys)
        trail.append(str(key))
        if isinstance(node[key], (dict, list)) and node[key] and rng.random() < 0.9:
            node = node[key]
            continue
        break
    kind = rng.choice(("replace", "replace", "replace", "remove", "add"))
    if kind == "replace":
        value = rng.choice(ODD)
        if isinstance(node[key], int) and not isinstance(node[key], bool) and rng.random() < 0.5:
            value = node[key] + rng.choice((-1, 1, node[key]))
        node[key] = value
    elif kind == "remove":
        del node[key]
    elif isinstance(node, dict):
        node["surprise"] = 1
    else:
        node.append(node[-1] if node else 1)
    (folder / name).write_text(json.dumps(data))
    return f"{kind} {'/'.join(trail)} in {name}"


def edit_weights(folder: Path, rng: random.Random) -> str:
    """Change the structure, or write values that no training produces."""
    path = folder / rng.choice(sorted(p.name for p in folder.glob("*.safetensors")))
    tensors = {name: tensor.clone() for name, tensor in load_file(str(path)).items()}
    name = rng.choice(sorted(tensors))
    kind = rng.choice(("drop", "rename", "surplus", "reshape", "integer", "nan", "infinite", "header", "length"))
    if kind == "drop":
        del tensors[name]
    elif kind == "rename":
        tensors[name + "x"] = tensors.pop(name)
    elif kind == "surplus":
        tensors["critic.weight"] = torch.zeros(3)
    elif kind == "reshape":
        tensors[name] = torch.cat([tensors[name].reshape(-1), torch.zeros(1, dtype=torch.float16)])
    elif kind == "integer":
        tensors[name] = torch.zeros(tensors[name].shape, dtype=torch.int32)
    elif kind in ("nan", "infinite"):
        tensors[name].reshape(-1)[rng.randrange(tensors[name].numel())] = float("nan" if kind == "nan" else "-inf")
    if kind in ("header", "length"):
        content = bytearray(path.read_bytes())
        if kind == "length":
            content[:8] = struct.pack("<Q", rng.choice((0, 1, 10 ** 6, 2 ** 40, 2 ** 63)))
        else:
            at = content.index(b"data_offsets") + rng.randrange(14, 30)
            content[at:at + 1] = b"9" if content[at:at + 1] != b"9" else b"-"
        path.write_bytes(bytes(content))
    else:
        save_file(tensors, str(path))
    return f"{kind} {name} in {path.name}"


def meaning(folder: Path):
    """Return what an edit may change openly: configuration, statistics, words."""
    return [json.loads((folder / name).read_text()) for name in JSON_FILES[:3]]


@pytest.mark.long
def test_edited_folders(original, tmp_path):
    folder, expected = original
    refusals, weights = 0, 0
    for seed in range(EDITS):
        rng, copy = random.Random(10_000 + seed), tmp_path / str(seed)
        shutil.copytree(str(folder), str(copy))
        structural = seed % 3 == 0
        what = edit_weights(copy, rng) if structural else edit_json(copy, rng)
        write_manifest(copy, {})
        result = outcome(copy)
        if result[0] == "refused":
            refusals += 1
            weights += structural
        else:
            assert not structural, f"{what} was not noticed"
            assert result == expected or meaning(copy) != meaning(folder), f"{what} changed what is predicted"
            stated = json.loads((copy / "config.json").read_text())
            assert result[1].ddim_steps == stated["ddim_steps"] and result[1].model.views == stated["model"]["views"]
        shutil.rmtree(str(copy))
    assert weights == EDITS // 3 and refusals > 0.6 * EDITS
