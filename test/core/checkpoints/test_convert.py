"""`hybridvla convert`: what comes out equals what went in, and everything that does not fit is refused by name."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from goldens import GOLDEN, needs_golden
from known_tokenizers import known_llama, known_phi
from safetensors.torch import load_file
from small_models import CONVENTION, changed, convert_arguments, dims_of, modules_of, released_run

from hybridvla_cli.__main__ import main
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.checkpoints.released import load_released
from hybridvla_core.contracts import Observation
from hybridvla_core.errors import CheckpointError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.predictor import Policy

pytestmark = pytest.mark.versions



@pytest.fixture
def folder(tmp_path):
    released_run(tmp_path / "source")
    return tmp_path / "source"


def observation(policy):
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    dims = policy.config.model.action_dim
    return Observation(dict.fromkeys(policy.cameras, image), "close the lid", np.zeros(dims), 3)


@pytest.mark.parametrize("family, dof, chunk, cameras, arms", [
    ("llama", 7, 1, "front", "arm"), ("llama", 14, 1, "front,wrist", "right,left"),
    ("phi", 7, 4, "front,wrist,wrist_left", "arm")])
def test_convert_then_predict(tmp_path, family, dof, chunk, cameras, arms):
    model = released_run(tmp_path, family, dof, chunk)
    out = tmp_path / "out"
    assert main(convert_arguments(tmp_path, out, cameras, arms)) == 0
    policy = Policy.from_checkpoint(out)
    assert policy.cameras == tuple(cameras.split(",")) and policy.convention.arms == tuple(arms.split(","))
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].half().float()), name
    prediction = policy.predict(observation(policy))
    assert prediction.action.shape == (chunk, dof) and np.isfinite(prediction.action).all()
    assert policy.config.image_strategy == ("resize-naive" if family == "llama" else "letterbox")
    manifest = read_checkpoint(out).manifest
    assert list(manifest["provenance"]["sources"]) == ["step-1.pt"] and manifest["provenance"]["kind"] == "released"


def test_shards_and_types_hold_the_same_values(folder, tmp_path):
    whole, parts, wide = (tmp_path / name for name in ("whole", "parts", "wide"))
    assert main(convert_arguments(folder, whole)) == 0
    assert main([*convert_arguments(folder, parts), "--shard-gib", "0.001"]) == 0
    assert main([*convert_arguments(folder, wide), "--dtype", "float32"]) == 0
    names = sorted(path.name for path in parts.glob("*.safetensors"))
    assert names == ["model.safetensors"]  # everything fits below a MiB
    assert load_file(str(wide / "model.safetensors"))["llm.lm_head.weight"].dtype == torch.float32
    for name, tensor in load_file(str(whole / "model.safetensors")).items():
        assert torch.equal(tensor.float(), load_file(str(wide / "model.safetensors"))[name]), name


def test_a_sharded_folder_predicts_as_a_whole_one(tmp_path):
    released_run(tmp_path, hidden=256, rows=4096)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(convert_arguments(tmp_path, whole)) == 0
    assert main([*convert_arguments(tmp_path, parts), "--shard-gib", "0.001"]) == 0
    index = json.loads((parts / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3 and all((parts / name).is_file() for name in files)
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    first, second = Policy.from_checkpoint(whole), Policy.from_checkpoint(parts)
    assert np.array_equal(first.predict(observation(first)).action, second.predict(observation(second)).action)
    (parts / files[1]).unlink()
    with pytest.raises(CheckpointError, match=f"{files[1]} missing"):
        read_checkpoint(parts)


def refused(capsys, arguments, *words):
    assert main([str(argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    for word in words:
        assert word in error, error
    last = error.strip().splitlines()[-1]  # a progress bar may stand before it
    assert "Traceback" not in error and last.startswith("hybridvla: ") and all(word in last for word in words), error
    return error


@pytest.mark.parametrize("change, words", [
    (lambda m: m["x_embedder"].pop("mlp.fc1.weight"), ("missing: x_embedder.mlp.fc1.weight",)),
    (lambda m: m["projector"].update(extra=torch.zeros(2)), ("surplus: projector.extra",)),
    (lambda m: m["final_layer"].update({"mlp.fc2.bias": torch.zeros(9)}), ("final_layer.mlp.fc2.bias is (9,), expected (7,)",)),
    (lambda m: m.pop("t_embedder"), ("modules missing: t_embedder",)),
    (lambda m: m.update(critic={}), ("unknown: critic",)),
    (lambda m: m["x_embedder"]["mlp.fc1.bias"].fill_(float("nan")), ("x_embedder.mlp.fc1.bias", "not finite")),
    (lambda m: m["projector"].update({"projector.0.bias": torch.zeros(128, dtype=torch.int64)}), ("floating-point",))])
def test_tensors_that_do_not_fit_are_named(folder, tmp_path, capsys, change, words):
    changed(folder, change)
    refused(capsys, convert_arguments(folder, tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("out.partial*"))


def test_a_value_that_the_stored_type_cannot_hold_asks_for_a_wider_one(folder, tmp_path, capsys):
    changed(folder, lambda m: m["x_embedder"].update({"mlp.fc1.bias": 1e6 + m["x_embedder"]["mlp.fc1.bias"].float()}))
    refused(capsys, [*convert_arguments(folder, tmp_path / "out"), "--dtype", "float16"],
            "x_embedder.mlp.fc1.bias: as torch.float16 it would hold", "write a wider --dtype")


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_with_code_is_refused_and_not_run(folder, tmp_path, capsys):
    path, trap = folder / "run" / "checkpoints" / "step-1.pt", tmp_path / "was_run"
    torch.save({"model": {"x_embedder": Runs(str(trap))}}, str(path))
    refused(capsys, convert_arguments(folder, tmp_path / "out"), "would run", "mkdir")
    torch.save({"model": {"x_embedder": Runs(str(trap))}}, str(path), _use_new_zipfile_serialization=False)
    refused(capsys, convert_arguments(folder, tmp_path / "out"), "not a whole torch archive")
    assert not trap.exists()


@pytest.mark.parametrize("name, said", [
    ("step-1/DATA.PKL", "take one of step-1/DATA.PKL, step-1/data.pkl for another"),
    ("Step-1/data.pkl", "take one of Step-1/data.pkl, step-1/data.pkl for another"),
    ("step-1/Data/0", "take one of step-1/Data/0, step-1/data/0 for another"),
    ("step-1/code/DATA.PKL", "step-1/code/DATA.PKL, step-1/data.pkl instead of step-1/data.pkl alone")])
def test_another_entry_that_torch_could_take_for_the_one_that_is_looked_at_is_refused(folder, tmp_path, capsys, name, said):
    path = folder / "run" / "checkpoints" / "step-1.pt"
    with zipfile.ZipFile(str(path), "a") as archive:
        archive.writestr(name, b"something else")
    refused(capsys, convert_arguments(folder, tmp_path / "out"), said)


def test_damaged_files_are_refused(folder, tmp_path, capsys):
    path, out = folder / "run" / "checkpoints" / "step-1.pt", tmp_path / "out"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    refused(capsys, convert_arguments(folder, out), "truncated")
    model = load_released(*_restored(folder, content))[0]
    at = content.index(modules_of(model)["x_embedder"]["mlp.fc1.weight"].numpy().tobytes())
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1:])
    refused(capsys, convert_arguments(folder, out), "checksum")
    path.rename(path.with_suffix(".bin"))
    refused(capsys, convert_arguments(folder, out), "expected one .pt file, found 0")


def _restored(folder, content):
    (folder / "run" / "checkpoints" / "step-1.pt").write_bytes(content)
    return folder / "run", folder / "dims.json"


def test_what_the_source_does_not_say_is_asked_for(folder, tmp_path, capsys):
    plain = convert_arguments(folder, tmp_path / "out")
    without = plain[:plain.index("--translation")]
    refused(capsys, without, "rotation_reference_xyzw", "--state-source", "--action-period", "--convention FILE")
    file = tmp_path / "convention.json"
    file.write_text(json.dumps({"convention": {
        "arms": ["arm"], "translation": "delta_base_frame", "rotation": "delta_euler_xyz",
        "rotation_reference_xyzw": [0, 0, 0, 1], "gripper_sense": "one_is_open",
        "delta_base": "measured", "action_period_s": 0.1, "state_source": "measured"}}))
    assert main([*without, "--convention", str(file), "--delta-base", "commanded"]) == 0
    convention = read_checkpoint(tmp_path / "out").config.convention
    assert convention.rotation == "delta_euler_xyz" and convention.delta_base == "commanded"
    for option in ("--camera-order", "--final-norm"):
        at = plain.index(option)
        with pytest.raises(SystemExit):
            main(plain[:at] + plain[at + 2:])


@pytest.mark.parametrize("options, words", [
    (["--camera-order", "front,front"], ("--camera-order", "different views")),
    (["--camera-order", "a,b,c,d"], ("--camera-order", "1 to 3")),
    (["--arms", "right,left"], ("action_dim is 7", "14")),
    (["--ddim-steps", "30"], ("30 DDIM steps",)),
    (["--statistics-key", "berkeley"], ("no data set 'berkeley'", "rlbench")),
    (["--dims", "nowhere.json"], ("nowhere.json", "cannot be read")),
    (["--tokenizer", "nowhere"], ("no tokenizer there", "--tokenizer FILE")),
    (["--first-state", "1,2"], ("first_state needs 7",)),
    (["--rotation-reference", "1,1,0,0"], ("unit quaternion",)),
    (["--shard-gib", "-1"], ("--shard-gib",))])
def test_options_that_do_not_fit(folder, tmp_path, capsys, options, words):
    refused(capsys, [*convert_arguments(folder, tmp_path / "out"), *options], *words)


@pytest.mark.parametrize("more, said", [(0, ""), (1, "depth of dino is 4, and the source has no"), (-1, "surplus")])
def test_a_towers_depth_that_is_not_the_sources_is_refused(folder, tmp_path, capsys, more, said):
    changed(folder, lambda modules: modules["vision_backbone"].update({"dino_featurizer.norm.weight": torch.ones(16)}))
    dims = dims_of("llama")
    dims["vision"]["dino"]["depth"] += more
    (folder / "dims.json").write_text(json.dumps(dims))
    arguments = convert_arguments(folder, tmp_path / "out")
    if said:
        refused(capsys, arguments, said)
    else:
        assert main(arguments) == 0


def test_dimensions_come_from_the_registry_name_or_a_file(folder, tmp_path, capsys):
    arguments = convert_arguments(folder, tmp_path / "out")
    at = arguments.index("--dims")
    refused(capsys, arguments[:at] + arguments[at + 2:], "give --dims FILE", "wrong shape")
    config = json.loads((folder / "run" / "config.json").read_text())
    config["vla"]["base_vlm"] = "llama3-vision"
    (folder / "run" / "config.json").write_text(json.dumps(config))
    refused(capsys, arguments[:at] + arguments[at + 2:], "llama3-vision", "--dims FILE")
    for key in ("vision", "llm", "projector"):
        dims = dims_of("llama")
        dims.pop(key)
        (folder / "dims.json").write_text(json.dumps(dims))
        refused(capsys, arguments, "dims.json", key)


@pytest.mark.parametrize("change, words", [
    (lambda s: s["rlbench"]["action"]["q99"].__setitem__(2, -1.5), ("channel [2]",)),
    (lambda s: s["rlbench"]["proprio"]["q01"].pop(), ("6 numbers", "7 dimensions")),
    (lambda s: s.update(other=s["rlbench"]), ("say which one",)),
    (lambda s: s["rlbench"].pop("proprio"), ("'proprio'",))])
def test_statistics_that_do_not_fit(folder, tmp_path, capsys, change, words):
    path = folder / "run" / "dataset_statistics.json"
    statistics = json.loads(path.read_text())
    change(statistics)
    path.write_text(json.dumps(statistics))
    refused(capsys, convert_arguments(folder, tmp_path / "out"), *words)
    path.unlink()
    refused(capsys, convert_arguments(folder, tmp_path / "out"), "dataset_statistics.json: missing")


def test_an_existing_folder_is_left_alone(folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    refused(capsys, convert_arguments(folder, out), "already there")
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.long
def test_memory_stays_below_the_largest_shard(tmp_path):
    """The test measures private memory while 66 MiB are converted, above the level after a small conversion."""
    hidden, rows = 512, 32768
    released_run(tmp_path, hidden=hidden, rows=rows)
    released_run(tmp_path / "small")
    program = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
from hybridvla_cli.__main__ import main
def anonymous():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon:"))
split = sys.argv.index("--then")
assert main(sys.argv[2:split]) == 0  # everything that is imported on the way is in memory now
before, peak, stop = anonymous(), [0], []
def watch():
    while not stop:
        peak[0] = max(peak[0], anonymous()); time.sleep(0.002)
thread = threading.Thread(target=watch); thread.start()
status = main(sys.argv[split + 1:])
stop.append(1); thread.join()
print("PEAK", peak[0] - before, status)
"""
    arguments = [*convert_arguments(tmp_path, tmp_path / "out"), "--shard-gib", "0.03125", "--dtype", "bfloat16"]
    small = convert_arguments(tmp_path / "small", tmp_path / "small-out")
    command = [sys.executable, "-c", program, str(ROOT / "src"), *small, "--then", *arguments]
    done = subprocess.run(command, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    peak = int(done.stdout.split("PEAK")[1].split()[0])
    largest = max(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert largest > hidden * rows * 2 * 0.99
    assert peak <= 1.3 * largest, f"{peak / 2 ** 20:.0f} MiB for shards of {largest / 2 ** 20:.0f} MiB"


@pytest.mark.long
@needs_golden
@pytest.mark.parametrize("variant, cameras, arms", [
    ("llama_7dof", "front", "arm"), ("llama_14dof_gqa", "front,wrist", "right,left"),
    ("phi_7dof", "front,wrist,wrist_left", "arm")])
def test_recorded_runs_convert_and_predict(tmp_path, variant, cameras, arms):
    """The fixtures contain no tokenizer, so a stand-in is used."""
    source = GOLDEN / variant
    (known_phi() if variant.startswith("phi") else known_llama()).save(str(tmp_path / "tokenizer.json"))
    out = tmp_path / "out"
    assert main(["convert", str(source / "run"), str(out), "--camera-order", cameras, "--arms", arms, "--final-norm", "variance",
                 "--dims", str(source / "dims.json"), "--tokenizer", str(tmp_path), *CONVENTION]) == 0
    policy = Policy.from_checkpoint(out)
    expected = load_released(source / "run", source / "dims.json")[0].state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in policy.model.state_dict().items())
    prediction = policy.predict(observation(policy))
    assert np.isfinite(prediction.action).all() and prediction.token_confidence.shape == (policy.config.model.action_dim,)
