"""`hybridvla predict --compare-float32`: what a shorter number format changes, in millimetres and degrees."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_policy import write

from hybridvla_cli.__main__ import main


@pytest.fixture
def predict(tmp_path):
    """Runs the verb on a small random checkpoint; returns its JSON result."""
    folder, picture, out = write(tmp_path / "checkpoint"), tmp_path / "front.png", tmp_path / "out.json"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(str(picture))

    def run(*arguments):
        assert main(["predict", "--checkpoint", str(folder), "--image", str(picture), "--instruction", "go", "--state",
                     "0,0,0,0,0,0,0", "--json", str(out), *arguments]) == 0
        return json.loads(out.read_text())
    return run


def test_bfloat16_is_compared_with_float32(predict, capsys):
    short = predict("--dtype", "bfloat16", "--compare-float32")
    said = capsys.readouterr().out
    exact = predict()
    assert "against_float32" not in exact and said.count("against float32, ") == 3
    for name in ("action", "diffusion", "autoregressive"):
        difference = short["against_float32"][name]
        assert set(difference) == {"position_mm", "rotation_deg", "gripper"}
        apart = np.linalg.norm(np.array(short[name])[:, :3] - np.array(exact[name])[:, :3], axis=1).max() * 1e3
        assert difference["position_mm"] == pytest.approx(apart, rel=1e-4, abs=1e-6)
        assert f"against float32, {name}: {difference['position_mm']:.3f} mm" in said
    assert 0.0 < short["against_float32"]["diffusion"]["position_mm"] < 100.0


def test_weights_in_fewer_bits_are_compared_as_well(predict, capsys):
    found = predict("--mode", "diffusion", "--precision", "int8", "--compare-float32")["against_float32"]
    assert found["diffusion"]["position_mm"] > 0.0


def test_float32_against_itself_is_nothing_and_a_path_that_did_not_run_is_left_out(predict, capsys):
    result = predict("--mode", "diffusion", "--compare-float32")["against_float32"]
    assert result["diffusion"] == {"position_mm": 0.0, "rotation_deg": 0.0, "gripper": 0.0}
    assert result["autoregressive"] is None and "autoregressive" not in capsys.readouterr().out


def test_what_the_model_did_not_see_is_said(predict, capsys):
    result = predict("--mode", "diffusion", "--instruction", "Put the zorble on the pad", "--state", "0,1.5,0,0,-3,0,1")
    said = capsys.readouterr().err
    assert "note: the model does not know zorble" in said
    assert "note: outside the training data" in said and "pitch of arm (-3), y of arm (1.5)" in said
    assert len(result["notes"]) == 2
    assert predict("--mode", "diffusion", "--instruction", "put the red block on the green pad")["notes"] == []


def test_another_device_another_picture_or_a_mark_is_one_sentence(tmp_path, capsys):
    folder, picture = write(tmp_path / "checkpoint"), tmp_path / "front.png"
    Image.new("RGB", (64, 48)).save(str(picture))
    usual = {"--checkpoint": str(folder), "--image": str(picture), "--instruction": "go", "--state": "0,0,0,0,0,0,0"}
    missing = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for option, value, words in (
            ("--device", f"cuda:{missing}", "--device cpu"), ("--device", "gpu", "'gpu'"), ("--device", "cuda:x", "'cuda:x'"),
            ("--device", "meta", "'meta'"), ("--device", "", "''"), ("--image", str(tmp_path / "none.png"), "none.png"),
            ("--image", str(folder / "config.json"), "config.json"), ("--state", "a,b", "--state"),
            ("--state", "1", "robot state"), ("--state", "nan,0,0,0,0,0,0", "not finite"),
            ("--instruction", "go \udce9", "UTF-8"), ("--instruction", " ", "empty"),
            ("--checkpoint", str(tmp_path / "x"), "x: no such")):
        arguments = [part for key, text in {**usual, option: value}.items() for part in (f"{key}={text}",)]
        assert main(["predict", *arguments]) == 1, (option, value)
        said = capsys.readouterr().err.strip()
        assert said.startswith("hybridvla: ") and "\n" not in said and words in said, (option, value, said)
