"""`hybridvla bench`: its results, its pass counts, another implementation beside ours, wrong usage."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hybridvla_cli.__main__ import main
from hybridvla_core.benchmark.modes import Passes
from hybridvla_core.benchmark.passes import summarise
from hybridvla_core.errors import ObservationError
from hybridvla_core.transforms.images import PreparedImage, to_pixels
from hybridvla_core.transforms.pictures import decode_reduced

OTHER = """
import torch
def build(given):
    assert given["images"] and given["state_dict"] and given["noise"].shape == (1, 1, 7)
    return lambda: torch.ones(3) + 1
"""


@pytest.mark.long
def test_a_run_reports_modes_ratios_passes_and_roofline(tmp_path, capsys):
    out, plot, other = tmp_path / "bench.json", tmp_path / "bench.svg", tmp_path / "other.py"
    other.write_text(OTHER)
    arguments = ["bench", "--rounds", "2", "--threads", "1", "--json", str(out), "--plot", str(plot), "--compare",
                 f"{other}:build"]
    assert main(arguments) == 0
    result = json.loads(out.read_text())
    assert {"device", "dtype", "views", "modes", "ratios", "roofline", "memory", "passes"} <= set(result)
    for mode in ("diffusion", "full", "full_plain", "diffusion_no_cache"):
        assert result["modes"][mode]["p10_ms"] <= result["modes"][mode]["median_ms"] <= result["modes"][mode]["p99_ms"]
    assert set(result["modes"]["full"]["stages"]) == {"preprocess", "vision", "prefix", "denoise", "decode"}
    assert {"full_over_diffusion_of_processor", "full_over_diffusion", "kv_cache_speedup",
            "compared_over_full"} <= set(result["ratios"])
    assert result["roofline"]["stages"]["prefix"]["gflop"] > 0 and result["roofline"]["copy_gb_s"] > 0
    counts = result["counts"]["operations"]
    assert set(counts) == {"vision", "prefix", "denoise", "decode", "all"} and counts["denoise"] > 2 * counts["decode"] > 100
    assert plot.read_text().startswith("<svg") and "full" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, message", [
    (["--preset", "huge"], "no preset"), (["--device", "cuda"], "no GPU"), (["--rounds", "0"], "at least 1"),
    (["--compare", "nowhere.py:f"], "existing file"), (["--graphs", "on"], "need a GPU")])
def test_wrong_usage_is_one_sentence(arguments, message, capsys):
    if arguments[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["bench", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_drawn_pass_counts_have_the_measured_frequencies():
    passes = Passes({"1": 75, "2": 20, "4": 5})
    drawn = passes.rounds(20)
    assert sorted(drawn) == [1] * 15 + [2] * 4 + [4] and passes.mean == pytest.approx(1.35)


def test_differences_count_apart_where_rounding_decides():
    row = dict(passes=1, fused=True, exact=7, decision_differs=False, tokens_differ=True, close=True, greedy_passes=7)
    clear = dict(row, tokens_differ=False, close=False, fused=False, passes=3)
    result = summarise([row, clear], 7)
    assert result["differences"]["tokens"] == 1 and result["differences"]["tokens_beyond_margin"] == 0
    assert result["fused"]["counts"] == {"1": 1} and result["unfused"]["mean"] == 3.0 and result["all"]["mean"] == 2.0


def test_a_prepared_image_gives_the_same_pixels_and_a_reduced_jpeg_nearly():
    import cv2

    from hybridvla_cli.bench_parts.images import picture
    from hybridvla_core.model.presets import preset

    towers, image = preset("tiny").towers, picture(640, 480, 1)
    plain = to_pixels([image], ["front"], towers, "resize-naive")
    prepared = to_pixels([PreparedImage(image, "front", towers, "resize-naive")], ["front"], towers, "resize-naive")
    assert all(torch.equal(plain[kind], prepared[kind]) for kind in plain)
    jpeg = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    reduced, shape = decode_reduced(jpeg, 128, "front")
    assert reduced.shape == (240, 320, 3) and shape == (480, 640, 3)
    assert decode_reduced(jpeg, 241, "front")[0].shape == (480, 640, 3), "never below the size that is needed"
    with pytest.raises(ObservationError, match="camera front"):
        decode_reduced(b"no jpeg", 128, "camera front")
    near = to_pixels([reduced], ["front"], towers, "resize-naive")
    assert np.abs(near["siglip"] - plain["siglip"]).mean() < 0.05


def test_a_no_cache_prediction_is_the_cached_one_and_runs_in_the_path_s_stages():
    from hybridvla_core.benchmark.modes import Modes
    from hybridvla_core.benchmark.subject import with_random_weights
    from hybridvla_core.model.presets import preset

    subject = with_random_weights("tiny", preset("tiny"), "float32", "cpu", 4, "off")
    called, call = [], subject.path.stages.call

    def kept(name, stage, *inputs):
        called.append((name, call(name, stage, *inputs)))
        return called[-1][1]

    subject.path.stages.call = kept
    Modes(subject).run("diffusion_no_cache", None, lambda stage: None)
    with torch.inference_mode():
        expected = subject.path.run(subject.inputs(subject.pixels()), decode=False).denoised
    assert [name for name, _ in called[:2]] == ["vision", "denoise"]
    assert np.allclose(called[1][1].numpy(), expected[:, 0], atol=1e-5)


def test_a_certificate_says_where_and_that_few_passes_are_greedy_decoding(tmp_path, capsys):
    file = tmp_path / "tiny.json"
    assert main(["bench", "certificate", "--preset", "tiny", "--observations", "3", "--threads", "1", "--json", str(file)]) == 0
    certificate = json.loads(file.read_text())
    assert certificate["predictions"] == 3 and certificate["different_beyond_margins"] == 0
    assert certificate["largest_difference"]["action"] < 1e-5 and certificate["greedy_passes"] == 7
    assert certificate["largest_difference"]["confidence"] > 0.0, "tokens that are no actions would have none at all"
    assert certificate["machine"]["torch"] == torch.__version__ and certificate["machine"]["threads"] == 1
    assert "3 predictions" in capsys.readouterr().out


@pytest.mark.long
def test_a_certificate_of_a_path_that_decodes_otherwise_says_so():
    from hybridvla_core.benchmark.certificate import certify, random_inputs
    from hybridvla_core.benchmark.subject import with_random_weights
    from hybridvla_core.model.presets import preset

    subject = with_random_weights("tiny", preset("tiny"), "float32", "cpu", 4, "off")
    verify = subject.path._prove

    def wrong(branch, hidden, start):
        proven = verify(branch, hidden, start)
        proven.examined.ids[:, -1] += 1
        return proven

    subject.path._prove = wrong
    result = certify(subject.path, random_inputs(subject, [1, 2]))
    assert result["same_tokens"] == 0 and result["different_beyond_margins"] + result["too_close_to_call"] == 2
