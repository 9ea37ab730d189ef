"""A run of the general recipe from a data set to a checkpoint: it resumes as the same run, and its checkpoint is accepted."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_data
from safetensors.torch import load_file

from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.checkpoints.weights import WEIGHTS
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.training.hybrid.run import Request, train

GROUNDED = toy_data.GROUNDED
STAGES = [dict(name="see", steps=3, train="towers", learning_rate=1e-3, terms=["patches"]),
          dict(name="act", steps=6, train="full", learning_rate=1e-3, tower_rate=0.5)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data.write(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    toy_data.add_preset(monkeypatch)


def go(folder, data, **changes):
    usual = dict(grounding=GROUNDED, stages=STAGES, augment="photometric", export="float32")
    config = changes.pop("config", None) or toy_data.config(**usual)
    return train(Request(config, (data,), folder / "work", folder / "out", threads=1, **changes))


def rows(folder):
    """Return the log without the values that depend on a clock."""
    found = map(json.loads, (folder / "work/log.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key not in ("seconds", "samples_per_s")} for row in found]


def weights(folder):
    return load_file(str(folder / "out" / WEIGHTS))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert bool((tensor == other[name]).all()), name


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        toy_data.add_preset(patch)
        folder = tmp_path_factory.mktemp("unbroken")
        go(folder, data)
    return folder


@pytest.mark.versions
def test_the_loss_falls_and_the_checkpoint_predicts(data, tmp_path):
    from small_policy import observation

    from hybridvla_core.policy.predictor import Policy

    config = toy_data.config(stages=[dict(name="act", steps=40, train="full", learning_rate=5e-3)], batch=16)
    result = go(tmp_path, data, config=config)
    trained = [row for row in rows(tmp_path) if row["kind"] == "train"]
    assert np.mean([row["tokens"] for row in trained[-3:]]) < 0.7 * trained[0]["tokens"]
    checkpoint = read_checkpoint(tmp_path / "out")
    assert checkpoint.manifest_sha256 == result["manifest_sha256"] and checkpoint.config.cameras == ("front",)
    assert checkpoint.config.convention == toy_data.CONVENTION and set(checkpoint.statistics) == {"toy"}
    assert Policy.from_checkpoint(tmp_path / "out").predict(observation()).action.shape == (1, 7)
    assert {row["kind"] for row in rows(tmp_path)} == {"train", "validation"}


@pytest.mark.parametrize("at", [2, 3, 7])
def test_a_run_that_dies_goes_on_as_the_same_run(data, tmp_path, monkeypatch, unbroken, at):
    from hybridvla_core.training.hybrid.loop import StageLoop

    whole, steps = StageLoop._step, [0]

    def dies(self, batch, step):
        if steps[0] == at:
            raise KeyboardInterrupt
        steps[0] += 1
        return whole(self, batch, step)

    monkeypatch.setattr(StageLoop, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, data)
    monkeypatch.setattr(StageLoop, "_step", whole)
    go(tmp_path, data)
    assert_same(weights(tmp_path), weights(unbroken))
    assert rows(tmp_path) == rows(unbroken)


def test_a_finished_run_writes_its_checkpoint_again(data, tmp_path, unbroken):
    go(tmp_path, data)
    (tmp_path / "out" / WEIGHTS).unlink()
    go(tmp_path, data)
    assert_same(weights(tmp_path), weights(unbroken))


PROGRAM = """
import sys, toy_data
from pathlib import Path
from hybridvla_core.training.hybrid.run import Request, train
toy_data.add_preset()
folder, data = Path(sys.argv[1]), Path(sys.argv[2])
import test_hybrid_run as test
config = toy_data.config(grounding=test.GROUNDED, stages=test.STAGES, augment="photometric", export="float32",
                         optimizer=dict(epsilon=float(sys.argv[3])), labels=int(sys.argv[4]))
train(Request(config, (data,), folder / "work", folder / "out", threads=1))
"""


def program(folder, data, launcher=(), epsilon=1e-8, labels=1):
    path = folder / "program.py"
    path.write_text(PROGRAM)
    places = [ROOT / "src", ROOT / "test/support", Path(__file__).parent]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), "OMP_NUM_THREADS": "1"}
    arguments = map(str, (path, folder, data, epsilon, labels))
    return subprocess.Popen([*(launcher or [sys.executable]), *arguments], env=environment, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.long
def test_a_killed_process_goes_on_as_the_same_run(data, tmp_path, unbroken):
    first = program(tmp_path, data)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "work/state").glob("step-*4-*")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    go(tmp_path, data)
    assert_same(weights(tmp_path), weights(unbroken))
    assert rows(tmp_path) == rows(unbroken)


def test_a_run_in_slices_is_the_same_run_and_each_slice_leaves_a_checkpoint(data, tmp_path, unbroken):
    assert go(tmp_path, data, seconds=1e-9)["steps"] == 1
    assert read_checkpoint(tmp_path / "out").manifest["provenance"]["unfinished"] is True
    steps = [1]
    while not (found := go(tmp_path, data, seconds=1e-9))["finished"]:
        steps.append(found["steps"])
    assert steps == [1, 2, 4, 5, 6, 7, 8] and found["steps"] == 9      # a slice that ends a stage also does the next step
    assert "unfinished" not in read_checkpoint(tmp_path / "out").manifest["provenance"]
    assert_same(weights(tmp_path), weights(unbroken))
    assert rows(tmp_path) == rows(unbroken)


def test_parts_of_a_batch_are_the_batch(data, tmp_path):
    stages = [dict(name="act", steps=3, train="full", learning_rate=1e-3)]
    for name, part in (("whole", 0), ("parts", 3)):
        go(tmp_path / name, data, config=toy_data.config(stages=stages, grounding=GROUNDED, micro_batch=part, export="float32"))
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, tensor in one.items():
        np.testing.assert_allclose(other[name], tensor, atol=2e-5, err_msg=name)


def test_recomputed_activations_and_kept_pictures_change_nothing(data, tmp_path, unbroken):
    config = toy_data.config(grounding=GROUNDED, stages=STAGES, augment="photometric", export="float32",
                             gradient_checkpointing=True, keep_frames=True,
                             workers=1)
    go(tmp_path, data, config=config)
    for name, tensor in weights(unbroken).items():
        np.testing.assert_allclose(weights(tmp_path)[name].float(), tensor.float(), atol=1e-6, err_msg=name)
    assert list((tmp_path / "work/pictures").glob("toy-*/0.npy"))


def test_pictures_that_were_decoded_before_the_process_ended_are_not_decoded_again(data, tmp_path, monkeypatch):
    from hybridvla_core.training import frames

    config = toy_data.config(stages=[dict(name="act", steps=1, train="full")], keep_frames=True)
    go(tmp_path / "unbroken", data, config=config)
    fit, seen = frames.FrameSet._fit, []

    def ends(self, sample):
        seen.append(sample)
        if len(seen) == 12:
            raise SystemExit
        return fit(self, sample)

    [monkeypatch.setattr(frames, size, 4) for size in ("FLUSHED", "TOGETHER")]
    monkeypatch.setattr(frames.FrameSet, "_fit", ends)
    with pytest.raises(SystemExit):
        go(tmp_path / "ended", data, config=config)
    done = int(next((tmp_path / "ended/work/pictures").glob(".toy-*.partial/done")).read_text())
    seen.clear()
    monkeypatch.setattr(frames.FrameSet, "_fit", lambda self, sample: seen.append(sample) or fit(self, sample))
    go(tmp_path / "ended", data, config=config)
    one, other = (next((tmp_path / name / "work/pictures").glob("toy-*/0.npy")) for name in ("unbroken", "ended"))
    assert (np.load(one) == np.load(other)).all() and not list((tmp_path / "ended/work/pictures").glob(".toy*"))
    assert done == 8 and len(seen) == len(np.load(one)) - done + 2, "the first one twice: for its shape, and to see that it reads"


@pytest.mark.parametrize("changes, words", [
    (dict(seed=4), "seed"),
    (dict(objective=dict(repeats=3)), "objective"),
])
def test_a_work_folder_of_another_run_is_refused(data, tmp_path, unbroken, changes, words):
    import shutil

    shutil.copytree(unbroken / "work", tmp_path / "work")
    config = toy_data.config(**{**dict(grounding=GROUNDED, stages=STAGES, augment="photometric"), **changes})
    with pytest.raises(HybridVLAError, match=f"another configuration .*{words}.*give another --work"):
        go(tmp_path, data, config=config)


def test_a_loss_that_is_not_finite_is_one_sentence_and_the_state_before_it_is_kept(data, tmp_path, monkeypatch):
    from hybridvla_core.training.hybrid.objective import HybridObjective

    whole, calls = HybridObjective._diffusion, [0]

    def grows(self, hidden, batch):
        calls[0] += 1
        return whole(self, hidden, batch) * (float("inf") if calls[0] == 6 else 1.0)

    monkeypatch.setattr(HybridObjective, "_diffusion", grows)
    config = toy_data.config(validation_frames=0)
    with pytest.raises(HybridVLAError, match="stage act: loss or gradient is not finite at step 5 .* lower its learning_rate"):
        go(tmp_path, data, config=config)
    assert [path.name for path in (tmp_path / "work/state").glob("step-*")][-1:] and max(
        row["total"] for row in rows(tmp_path)) == 5
    monkeypatch.setattr(HybridObjective, "_diffusion", whole)
    assert go(tmp_path, data, config=config)["steps"] == 6


@pytest.mark.parametrize("changes", [dict(sequence=2), dict(sequence=3, state="words"), dict(sequence=4), dict(state="none")],
                         ids=["kind 2", "kind 3", "kind 4", "without state"])
def test_every_sequence_is_trained_exported_and_predicts(data, tmp_path, changes):
    from small_policy import observation

    from hybridvla_core.policy.predictor import Policy

    stages = [dict(name="act", steps=3, train="full", learning_rate=1e-3)]
    go(tmp_path, data, config=toy_data.config(**changes, stages=stages))
    policy = Policy.from_checkpoint(tmp_path / "out")
    sequence = policy.config.model.sequence
    assert (sequence.kind, sequence.state) == (changes.get("sequence", 1), changes.get("state", "embedding"))
    for mode in ("ensemble", "diffusion", "autoregressive"):
        assert np.isfinite(policy.predict(observation(), mode=mode).action).all()


def test_a_checkpoint_without_diffusion_says_that_it_cannot_predict(data, tmp_path):
    from hybridvla_core.policy.predictor import Policy

    stages = [dict(name="act", steps=1, train="full")]
    go(tmp_path, data, config=toy_data.config(objective=dict(diffusion=0.0), stages=stages))
    with pytest.raises(HybridVLAError, match="final_layer, t_embedder, x_embedder hold random weights"):
        Policy.from_checkpoint(tmp_path / "out")


def test_a_chunk_is_trained_and_predicted(data, tmp_path):
    from small_policy import observation

    from hybridvla_core.policy.predictor import Policy

    stages = [dict(name="act", steps=2, train="full")]
    go(tmp_path, data, config=toy_data.config(chunk=4, objective=dict(tokens=0.0), stages=stages))
    policy = Policy.from_checkpoint(tmp_path / "out", mode="diffusion")
    assert policy.predict(observation()).action.shape == (4, 7)
    assert read_checkpoint(tmp_path / "out").config.trained == ("diffusion",)


def test_tensorboard_reads_what_was_logged(data, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    go(tmp_path, data, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "work/tensorboard"))
    events.Reload()
    wanted = pytest.approx([row["tokens"] for row in rows(tmp_path) if row["kind"] == "train" and "tokens" in row], abs=1e-5)
    assert [event.value for event in events.Scalars("train/tokens")] == wanted


def test_episodes_of_the_weights_of_the_moment_are_logged(data, tmp_path):
    seen = []
    def evaluate(folder):
        seen.append(load_file(str(folder / WEIGHTS)))
        return {"successes": len(seen), "episodes": 5}

    config = toy_data.config(grounding=GROUNDED, stages=STAGES, export="float32")
    go(tmp_path, data, config=config, evaluate=evaluate, evaluate_every=3)
    found = [row for row in rows(tmp_path) if row["kind"] == "evaluation"]
    assert [(row["total"], row["successes"]) for row in found] == [(3, 1), (6, 2), (9, 3)]
    assert_same(seen[-1], weights(tmp_path))
