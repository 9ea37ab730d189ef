"""`hybridvla predict --compare-float32`: what a shorter number format changed, in millimetres and degrees."""
from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from small_policy import write

from hybridvla_cli.__main__ import main


@pytest.fixture
def predict(tmp_path):
    """Runs the verb on a small random checkpoint; returns its result for machines."""
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


def test_float32_against_itself_is_nothing_and_a_path_that_did_not_run_is_left_out(predict, capsys):
    result = predict("--mode", "diffusion", "--compare-float32")["against_float32"]
    assert result["diffusion"] == {"position_mm": 0.0, "rotation_deg": 0.0, "gripper": 0.0}
    assert result["autoregressive"] is None and "autoregressive" not in capsys.readouterr().out
