"""`hybridvla replay` tells good checkpoints from bad ones, on an episode that the shipped checkpoint drove."""
from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import replay_bag
from replay_bag import INSTRUCTION, ROOT, options

from hybridvla_cli.__main__ import main
from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.replay import job as replay_job

TINY = ROOT / "checkpoints/tiny"
OTHER = "put the red block on the green pad"


def replay(*bags, **changes):
    return replay_job.Replay(options(*bags, **changes)).run()


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return replay_bag.write(tmp_path_factory.mktemp("episode") / "good.bag", replay_bag.episode())


def altered(folder, change):
    """Copy the shipped checkpoint with changed statistics and a matching manifest."""
    from hybridvla_core.checkpoints.format import STATISTICS, write_manifest

    shutil.copytree(str(TINY), str(folder))
    statistics = json.loads((folder / STATISTICS).read_text())
    change(next(iter(statistics.values())))
    (folder / STATISTICS).write_text(json.dumps(statistics))
    return folder, lambda: write_manifest(folder, {"note": "altered"})


@pytest.mark.long
def test_the_command_passes_on_the_shipped_checkpoint_and_leaves_every_result(bag, tmp_path):
    status = main(["replay", str(bag), "--checkpoint", str(TINY), "--rate", "4", "--json", str(tmp_path / "o.json"),
                   "--rows", str(tmp_path / "o.jsonl"), "--junit", str(tmp_path / "o.xml"), "--report",
                   str(tmp_path / "o.html"), "--other-instruction", OTHER])
    result = json.loads((tmp_path / "o.json").read_text())
    assert (status, result["verdict"], result["reasons"]) == (0, "pass", [])
    assert {"frames", "errors", "fused_share", "interventions", "speed_over_realtime"} <= set(result)
    assert result["frames"] >= 15 and result["errors"]["median_m"] < 0.02
    assert set(result["errors"]["by_phase"]) >= {"approach", "grasp", "release"}
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == result["frames"]
    page = (tmp_path / "o.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 10 and 'href="#m0-' in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "<failure" not in (tmp_path / "o.xml").read_text()


@pytest.mark.long
def test_altered_statistics_fail_also_when_the_manifest_fits(bag, tmp_path):
    def stretch(entry):
        entry["action"]["q99"] = (np.array(entry["action"]["q99"]) * 1.5).tolist()

    folder, fit = altered(tmp_path / "stretched", stretch)
    with pytest.raises(HybridVLAError, match="does not match the manifest|the manifest says"):
        replay(bag, checkpoint=str(folder))
    fit()
    result = replay(bag, checkpoint=str(folder), compare=str(TINY))
    assert result.summary["verdict"] == "fail" and any("statistics" in text for text in result.summary["reasons"])
    assert result.summary["compared"]["verdict"] == "pass"
    assert result.summary["errors"]["median_m"] > 2 * result.summary["compared"]["errors"]["median_m"]


@pytest.mark.long
def test_altered_state_statistics_fail(bag, tmp_path):
    def shift(entry):
        for key in ("q01", "q99"):
            entry["proprio"][key] = (np.array(entry["proprio"][key]) + 0.2).tolist()

    folder, fit = altered(tmp_path / "shifted", shift)
    fit()
    assert replay(bag, checkpoint=str(folder)).summary["verdict"] == "fail"


@pytest.mark.long
def test_a_checkpoint_that_cannot_tell_words_apart_is_named_as_deaf(bag, tmp_path):
    from safetensors.torch import load_file, save_file

    from hybridvla_core.checkpoints.format import write_manifest
    from hybridvla_core.transforms.prompt import PromptEncoder

    folder = tmp_path / "deaf"
    shutil.copytree(str(TINY), str(folder))
    tensors = load_file(str(folder / "model.safetensors"))
    name = next(key for key in tensors if key.endswith("embed_tokens.weight"))
    sequence = replay_job.Replay(options(bag))._policy(str(TINY)).config.model.sequence
    encoder = PromptEncoder.from_file(folder / "tokenizer.json", sequence)
    words = sorted({i for text in (INSTRUCTION, OTHER, "put the green block on the blue pad") for i in encoder.text_ids(text)})
    tensors[name][words] = tensors[name][words].mean(dim=0)
    save_file(tensors, str(folder / "model.safetensors"))
    write_manifest(folder, {"note": "all words look alike"})
    result = replay(bag, checkpoint=str(folder), senses=True)
    assert result.summary["verdict"] == "fail" and any("deaf" in text for text in result.summary["reasons"])


@pytest.mark.long
def test_batches_and_single_predictions_agree(bag):
    one, many = (replay(bag, batch=batch, rate=2.0).contenders[0].evaluator.rows for batch in (1, 8))
    assert len(one) == len(many) > 10
    for first, second in zip(one, many):
        assert first.stamp_ns == second.stamp_ns
        assert np.abs(first.targets[0].target.position - second.targets[0].target.position).max() < 1e-5
