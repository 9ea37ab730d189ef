"""`hybridvla parity` notices altered, missing and additional expectations, and assumes no number of cases or views."""
from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from goldens import GOLDEN, needs_golden

from hybridvla_cli.__main__ import main
from hybridvla_core.evaluation.parity.table import Archive, Table

#: File, array, what is added to the array, and the row of the report that has to notice.
ALTERED = (
    ("case0.npz", "vision_features_stride1", 0.01, "vision features"),
    ("case0.npz", "projected_patches_stride1", 0.01, "projected patches"),
    ("case0.npz", "kv_tail4", 0.01, "keys and values"),
    ("case0.npz", "hidden_tail6_all_layers", 0.01, "hidden states, all layers"),
    ("case0.npz", "eps_probe/eps_cached", 1e-3, "eps on the cached prefix"),
    ("case0.npz", "chunk4/eps_no_cache", 1e-3, "eps of a chunk"),
    ("case0.npz", "ar/tokens", 1, "autoregressive tokens"),
    ("case0.npz", "ar/max_probs", 1e-3, "token confidence"),
    ("case0.npz", "ddim8/x_out", 1e-3, "ddim8 trajectory"),
    ("case0.npz", "both/ar_actions", 1e-3, "both paths"),
    ("case0.npz", "ar/inputs_embeds_tail6", 0.01, "inputs of the decoder"),
    ("train.npz", "v1/labels", 1, "label mask"),
    ("train.npz", "v1/finetune/R4/loss_total", 1e-3, "loss total"),
    ("train.npz", "v1/ar_only/loss_ce", 1e-3, "loss ce, tokens only"),
    ("train.npz", "v3/finetune/R1/grad/final_layer.norm_final.weight", 0.1, "gradients"),
    ("../common/preprocess.npz", "img1/letterbox/clip/u8", 1, "pixels after resizing"),
    ("../common/diffusion.npz", "base/betas", 1e-6, "schedule"),
    ("../common/action_tokens.npz", "phi2_sub7/encode_ids", 1, "action values to ids"))


def copied(tmp_path, variant):
    shutil.copytree(str(GOLDEN / "common"), str(tmp_path / "common"))
    shutil.copytree(str(GOLDEN / variant), str(tmp_path / variant))
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / variant


def altered(path, **changes):
    arrays = dict(np.load(str(path)))
    for name, change in changes.items():
        arrays[name] = arrays[name] + np.asarray(change).astype(arrays[name].dtype)
    np.savez(str(path), **arrays)


@pytest.mark.long
@needs_golden
def test_every_kind_of_altered_expectation_is_noticed(tmp_path, capsys):
    folder = copied(tmp_path, "llama_7dof")
    for name in sorted({file for file, *_ in ALTERED}):
        altered(folder / name, **{array: change for file, array, change, _ in ALTERED if file == name})
    prompts = json.loads((tmp_path / "common" / "prompts.json").read_text())
    prompts[0]["llama"]["ar_ids"][-1] += 1
    (tmp_path / "common" / "prompts.json").write_text(json.dumps(prompts))
    result = tmp_path / "result.json"
    assert main(["parity", str(folder), "--json", str(result)]) == 1
    failed = {row["quantity"] for row in json.loads(result.read_text())["rows"] if not row["passed"]}
    assert failed >= {row for *_, row in ALTERED} | {"token ids"}
    assert "past tolerance" in capsys.readouterr().out


@pytest.mark.long
@needs_golden
def test_other_numbers_of_cases_and_things_nobody_compares(tmp_path):
    """First one case under another name, without training; then an array, a file and a listed name that nothing uses."""
    folder = copied(tmp_path, "phi_7dof")
    cases = json.loads((folder / "cases.json").read_text())
    (folder / "cases.json").write_text(json.dumps({"case7": cases["case2"]}))
    (folder / "case2.npz").rename(folder / "case7.npz")
    for name in ("case0.npz", "case1.npz", "train.npz", "train.json"):
        (folder / name).unlink()
    result = tmp_path / "result.json"
    assert main(["parity", str(folder), "--json", str(result)]) == 0
    report = json.loads(result.read_text())
    assert report["uncompared"] == [] and list(report["bfloat16"]) == ["bfloat16 case7"]
    assert report["bfloat16"]["bfloat16 case7"]["diffusion"]["position_mm"] >= 0.0

    arrays = dict(np.load(str(folder / "case7.npz")))
    arrays["ar/entropy"] = np.zeros(7)
    del arrays["prefix_last_hidden_stride8"]
    np.savez(str(folder / "case7.npz"), **arrays)
    shutil.copy(str(folder / "case7.npz"), str(folder / "case8.npz"))
    assert main(["parity", str(folder), "--json", str(result)]) == 1
    left = " ".join(json.loads(result.read_text())["uncompared"])
    assert "ar/entropy" in left and "case8.npz: the whole file" in left
    assert "prefix_last_hidden_stride8 is only in the description" in left


@needs_golden
@pytest.mark.parametrize("name, content", [("cases.json", "{\"case0\": 3}"), ("cases.json", "[1"), ("dims.json", "{}"),
                                           ("case0.npz", "x")])
def test_a_damaged_folder_ends_in_one_sentence(tmp_path, capsys, name, content):
    folder = copied(tmp_path, "phi_7dof")
    (folder / name).write_text(content)
    for other in ("case1.npz", "case2.npz", "train.npz", "train.json"):
        (folder / other).unlink()
    assert main(["parity", str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("hybridvla: ") and "Traceback" not in error


def test_comparisons_judge_shapes_and_nan(tmp_path):
    table = Table()
    table.compare("shape", np.zeros(3), np.zeros(4), 1.0)
    table.compare("nan", np.array([np.nan]), np.array([0.0]), 1.0)
    table.compare("both nan", np.array([np.nan]), np.array([np.nan]), 1.0)
    table.compare("worst", [1.0], [1.0], 0.1)
    table.compare("worst", [1.0], [2.0], 0.1)
    table.compare("worst", [1.0], [1.05], 0.1)
    assert not any(row.passed for row in table.rows.values()) and table.rows["worst"].difference == 1.0
    np.savez(str(tmp_path / "a.npz"), read=np.zeros(2), unread=np.zeros(2), excused=np.zeros(2))
    archive = Archive(tmp_path / "a.npz")
    archive["read"]
    archive.peek("unread")
    table.leave(archive, (r"exc.*",))
    assert table.uncompared == ["a.npz: unread"]
