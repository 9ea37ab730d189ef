"""`hybridvla bench --precision-report`: how far predictions move, and wrong usage in one sentence."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from small_policy import observation, write

from hybridvla_cli.__main__ import main
from hybridvla_cli.bench_parts import precision as part
from hybridvla_core.benchmark.observations import kept
from hybridvla_core.benchmark.precision import change, predictions_of
from hybridvla_core.errors import DataError, ObservationError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.predictor import Policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("checkpoint") / "small")


def test_a_change_is_counted_in_millimetres_degrees_gates_and_tokens(folder):
    before = predictions_of(Policy.from_checkpoint(folder), [observation(), observation(8)])
    assert change(before, before)["largest_mm"] == 0.0 == change(before, before)["tokens_differ"]
    action, tokens = before[0].action.copy(), before[0].autoregressive.copy()
    action[0, 0] += 0.003
    action[0, 3:6] = [0.0, 0.0, np.deg2rad(2.0)]
    action[0, 6] = 1.0 - (action[0, 6] > 0.5)
    tokens[0, :2] += 0.1
    still = before[0].action.copy()
    still[0, 3:6] = 0.0
    other = replace(before[0], action=action, autoregressive=tokens, fused=not before[0].fused)
    found = change([replace(before[0], action=still), before[1]], [other, before[1]])
    assert found["largest_mm"] == pytest.approx(3.0, abs=1e-3) and found["median_mm"] == pytest.approx(1.5, abs=1e-3)
    assert found["largest_degrees"] == pytest.approx(2.0, abs=1e-3) and found["diffusion_largest_mm"] == 0.0
    assert found["grippers_differ"] == found["gates_flip"] == found["with_another_token"] == 0.5
    assert found["tokens_differ"] == pytest.approx(2 / 14, abs=1e-4)
    with pytest.raises(ObservationError, match="no observation to compare on"):
        predictions_of(Policy.from_checkpoint(folder), [])


def test_a_report_names_what_was_emulated_and_what_it_costs_in_memory(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(part, "_observations", lambda args, policy: [observation(), observation(8)])
    file = tmp_path / "report.json"
    assert main(["bench", "--checkpoint", str(folder), "--threads", "1", "--precision-report", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert list(result["precisions"]) == ["fp8-emulated", "int8", "int4"] and result["observations"] == 2
    for name, most in (("fp8-emulated", 9), ("int8", 9), ("int4", 6)):
        row = result["precisions"][name]
        assert row["largest_mm"] > 0 and row["bits"] < most < result["baseline"]["bits"] == 32.0
    assert "| int4 |" in capsys.readouterr().out


def test_observations_travel_in_one_file(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(part, "_observations", lambda args, policy: [observation(), observation(8, instruction="go")])
    file, results = tmp_path / "observations.npz", []
    arguments = ["bench", "--checkpoint", str(folder), "--threads", "1", "--json", str(tmp_path / "report.json")]
    assert main([*arguments, "--precision-report", "full", "--keep-observations", str(file)]) == 0
    monkeypatch.undo()
    assert main([*arguments, "--data", str(file), "--precision-report", "full"]) == 0
    results = json.loads((tmp_path / "report.json").read_text())
    assert results["observations"] == 2 and results["precisions"]["full"]["largest_mm"] == 0.0
    found = kept(file)
    assert [one.instruction for one in found] == [observation().instruction, "go"] and found[1].stamp_ns == 8
    assert found[0].images["front"].shape == observation().images["front"].shape
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="holds no observations"):
        kept(file)


def test_the_shipped_observations_are_the_shipped_checkpoint_s():
    found = kept(ROOT / "config" / "benchmark" / "observations.npz")
    assert len(found) >= 20 and all(set(one.images) == {"front"} and one.state.shape == (7,) for one in found)


@pytest.mark.parametrize("arguments, message", [
    (["--preset", "tiny"], "name a --checkpoint"), (["--observations", "0"], "at least 1")])
def test_wrong_usage_of_the_report_is_one_sentence(arguments, message, capsys):
    assert main(["bench", *arguments, "--precision-report"]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments, message", [
    (["--precision-report", "int3"], "use one of full"), (["--precision-report", "fp8"], "needs a GPU with 8-bit floats"),
    (["--precision", "fp8"], "needs a GPU with 8-bit floats"),
    (["--precision", "int8", "--compare", "x.py:f"], "use --precision full")])
def test_a_precision_that_cannot_be_had_is_one_sentence(folder, arguments, message, capsys):
    assert main(["bench", "--checkpoint", str(folder), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
