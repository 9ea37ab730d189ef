"""A small checkpoint made here: predictions, the folder's integrity, and every refusal."""
from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_policy import ENSEMBLE, SCALE, observation, write

from hybridvla_cli.__main__ import main
from hybridvla_core.checkpoints.format import read_checkpoint, write_manifest
from hybridvla_core.contracts import Mode
from hybridvla_core.errors import CheckpointError, ConfigurationError, DeviceError, ObservationError
from hybridvla_core.model.schedule import DiffusionSchedule
from hybridvla_core.policy.inference.ensemble import disagreement, fuse
from hybridvla_core.policy.predictor import Policy
from hybridvla_core.transforms.conventions import ActionConvention
from hybridvla_core.transforms.images import fit
from hybridvla_core.transforms.normalise import Normaliser

pytestmark = pytest.mark.versions


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "checkpoint")


@pytest.mark.long
def test_a_prediction_can_be_repeated_and_modes_differ(folder):
    policy = Policy.from_checkpoint(folder)
    first, again = policy.predict(observation()), policy.predict(observation())
    assert np.array_equal(first.action, again.action)
    assert not np.array_equal(first.diffusion, policy.predict(observation(stamp=8)).diffusion)
    assert first.token_confidence.shape == (7,) and first.diffusion.shape == (1, 7)
    alone = policy.predict(observation(), mode="diffusion")
    assert alone.autoregressive is None and math.isnan(alone.mean_confidence)
    assert np.allclose(alone.action, first.diffusion, atol=1e-6)  # its passes have fewer rows and may round differently
    tokens = policy.predict(observation(), mode=Mode.AUTOREGRESSIVE)
    assert tokens.diffusion is None and np.array_equal(tokens.action, first.autoregressive)


def test_a_batch_equals_single_predictions(folder):
    policy = Policy.from_checkpoint(folder)
    observations = [observation(stamp=i, instruction=text) for i, text in
                    enumerate(["pick up the red block", "put the red block on the green pad", "pick up the blue block"])]
    for single, batched in zip([policy.predict(o) for o in observations], policy.predict_batch(observations)):
        assert np.allclose(single.diffusion, batched.diffusion, atol=1e-5)


@pytest.mark.parametrize("condition", ["denoised", "noise", "released"])
def test_every_autoregressive_condition_runs(tmp_path, condition):
    policy = Policy.from_checkpoint(write(tmp_path / condition, autoregressive_condition=condition))
    assert policy.predict(observation()).autoregressive.shape == (1, 7)


@pytest.mark.parametrize("change, message", [
    (dict(images={}), "view front is missing"), (dict(images={"front": np.zeros((4, 4))}), "view front"),
    (dict(state=np.zeros(6)), "shape"), (dict(state=np.full(7, np.nan)), "not finite"),
    (dict(images=dict.fromkeys(("front", "wrist"), np.zeros((64, 64, 3), np.uint8))), "view wrist is unknown"),
    (dict(instruction="put the red block " * 99), "say it shorter"), (dict(instruction="  "), "empty"),
    (dict(instruction="xyzzy qwerty"), "no word")])
def test_an_unusable_observation_is_named(folder, change, message):
    with pytest.raises(ObservationError, match=message):
        Policy.from_checkpoint(folder).predict(observation(**change))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "dataset_statistics.json", "tokenizer.json",
                                  "MANIFEST.json"])
def test_a_missing_or_altered_file_is_named(folder, name):
    content = (folder / name).read_bytes()
    if name != "MANIFEST.json":
        for altered in (content[:-9], content[:40] + bytes([content[40] ^ 4]) + content[41:]):
            (folder / name).write_bytes(altered)
            with pytest.raises(CheckpointError, match=name):
                read_checkpoint(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} missing"):
        read_checkpoint(folder)


def remade(folder, name, change):
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))
    write_manifest(folder, {})
    return folder


@pytest.mark.parametrize("name, change, message", [
    ("dataset_statistics.json", lambda d: d["set"]["action"]["q99"].__setitem__(0, -1.5), "channel .0."),
    ("dataset_statistics.json", lambda d: d["set"]["action"].pop("q01"), "q01 is missing"),
    ("dataset_statistics.json", lambda d: d["set"]["proprio"]["q01"].append(0.0), "dimensions"),
    ("dataset_statistics.json", lambda d: d.update(other=d.pop("set")), "no data set 'set'"),
    ("config.json", lambda d: d.update(surprise=1), "unknown key surprise"),
    ("config.json", lambda d: d.pop("ensemble"), "missing key ensemble"),
    ("config.json", lambda d: d["cameras"].append("wrist"), "cameras"),
    ("config.json", lambda d: d["convention"].update(rotation="quaternion"), "rotation"),
    ("config.json", lambda d: d["model"]["decoder"].update(layers=3), "layers"),
    ("config.json", lambda d: d["model"]["decoder"].update(intermediate=100), "gate_proj")])
def test_contents_that_do_not_fit_are_refused_though_the_manifest_does(folder, name, change, message):
    with pytest.raises((CheckpointError, ConfigurationError), match=message):
        Policy.from_checkpoint(remade(folder, name, change))


def test_predict_on_the_command_line(folder, tmp_path, capsys):
    from PIL import Image

    Image.fromarray(observation().images["front"]).save(tmp_path / "a.png")
    arguments = ["predict", "--checkpoint", str(folder), "--image", str(tmp_path / "a.png"), "--instruction",
                 "put the red block on the green pad", "--state", "0.3,0,0.4,0,0,0,1", "--json", str(tmp_path / "out.json")]
    assert main(arguments) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert len(result["action"][0]) == 7 and result["cameras"] == ["front"]
    for bad, word in ((["--state", "1,2,x"], "state"), (["--image", str(tmp_path / "none.png")], "image"),
                      (["--checkpoint", str(tmp_path)], "missing")):
        assert main(arguments + bad) == 1
        error = capsys.readouterr().err
        assert word in error and "Traceback" not in error


def test_rotations_average_on_so3_at_the_wrap_around():
    first, second = np.zeros(7), np.zeros(7)
    first[3], second[3] = math.pi - 0.1, -math.pi + 0.1
    assert abs(abs(fuse(first, second, ENSEMBLE)[3]) - math.pi) < 1e-9
    released = fuse(first, second, replace(ENSEMBLE, rotation_mean="euler"))
    assert abs(released[3]) < 1e-9  # the released arithmetic turns the tool around
    assert disagreement(first, second)[1] == pytest.approx(0.2)


def test_gripper_and_gate_rules():
    opened, closed = np.array([0.0] * 6 + [1.0]), np.zeros(7)
    assert fuse(opened, closed, ENSEMBLE)[6] == 1.0
    assert fuse(opened, closed, replace(ENSEMBLE, gripper="mean_above_half"))[6] == 0.0
    assert ENSEMBLE.opens(np.full(7, 0.97)) and not ENSEMBLE.opens(np.full(7, 0.95))
    released = replace(ENSEMBLE, rule="released", theta=5.8)
    assert released.opens(np.array([0.97] * 6 + [1e-6] * 8)) and not released.opens(np.array([0.96] * 14))


@pytest.mark.parametrize("sense", ["one_is_open", "one_is_closed"])
@pytest.mark.parametrize("said, decided", [(-1.0, 0.0), (0.4, 0.0), (0.6, 1.0), (1.0, 1.0)])
def test_a_gripper_is_decided_and_never_scaled(sense, said, decided):
    statistics = {"set": {"action": {"q01": [0.0] * 7, "q99": [1.0] * 7}, "proprio": SCALE}}
    normaliser = Normaliser.from_json(statistics, None, 7, "test")
    value = normaliser.action.unnormalise(np.full(7, said), (6,))[6]
    assert value == decided
    opening = ActionConvention(("arm",), "delta_base_frame", "absolute_euler_xyz", (0.0, 0.0, 0.0, 1.0), sense, "commanded", 0.0,
                               "measured").opening(value)
    assert opening == (decided if sense == "one_is_open" else 1.0 - decided)


@pytest.mark.parametrize("mask", [True, False])
def test_a_channel_that_never_moved_is_commanded_as_it_was(mask):
    entry = {"q01": [-1.0, 0.25] + [0.0] * 5, "q99": [1.0, 0.25] + [1.0] * 5, "mask": [True, mask] + [True] * 4 + [False]}
    scale = Normaliser.from_json({"set": {"action": entry, "proprio": SCALE}}, None, 7, "test").action
    for said in (-1.0, 0.3, 1.0):
        assert scale.unnormalise(np.full(7, said), (6,))[1] == 0.25


def test_the_state_of_a_constant_channel_follows_the_rule():
    entry = {"q01": [0.5] + [-1.0] * 6, "q99": [0.5] + [1.0] * 6, "mask": [True] * 7}
    states = [Normaliser.from_json({"set": {"action": SCALE, "proprio": entry}}, None, 7, "test", rule).state
              for rule in ("zero", "released")]
    assert [state.normalise(np.full(7, 0.5))[0] for state in states] == [0.0, -1.0]
    assert states[0].clipped(np.array([7.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0])) == [1]
    assert [state.hidden.tolist() for state in states] == [[True] + [False] * 6, [False] * 7]


def test_a_state_that_was_never_recorded_is_shown_as_zeros():
    entry = {"q01": [0.0] * 7, "q99": [0.0] * 7, "mask": [True] * 6 + [False]}
    state = Normaliser.from_json({"set": {"action": SCALE, "proprio": entry}}, None, 7, "test").state
    assert not state.recorded and not state.normalise(np.ones(7)).any()


def test_impossible_step_counts_are_refused_with_the_possible_ones():
    with pytest.raises(ConfigurationError, match="25, 34, 50"):
        DiffusionSchedule().ddim(30)


def test_strategies_keep_the_size():
    image = np.random.default_rng(1).integers(0, 255, (48, 31, 3), dtype=np.uint8)
    for strategy in ("resize-naive", "letterbox", "resize-crop"):
        assert fit(image, 32, strategy, (0.5, 0.5, 0.5)).shape == (32, 32, 3)
    with pytest.raises(ConfigurationError, match="strategy"):
        fit(image, 32, "stretch", (0.5, 0.5, 0.5))


def test_a_lost_gpu_and_too_little_memory_are_explained(folder, monkeypatch):
    policy = Policy.from_checkpoint(folder)
    for error, message in ((RuntimeError("CUDA error: unspecified launch failure\nmore"), "failed during a prediction.*restart"),
                           (torch.cuda.OutOfMemoryError("out"), "too little memory.*bfloat16")):
        def fail(*_, error=error, **__):
            policy.device = torch.device("cuda")
            raise error
        monkeypatch.setattr(policy.path, "run", fail)
        policy.device = torch.device("cpu")
        with pytest.raises(DeviceError, match=message):
            policy.predict(observation())


def test_a_gpu_that_is_lost_between_two_predictions_is_explained_and_a_fault_of_ours_stays_one(folder, monkeypatch):
    policy = Policy.from_checkpoint(folder)
    for said, kind in (("CUDA error: unspecified launch failure", DeviceError), ("shape '[2]' is invalid", RuntimeError)):
        def fail(*_, said=said):
            policy.device = torch.device("cuda")
            raise RuntimeError(said)
        monkeypatch.setattr(policy, "inputs", fail)
        policy.device = torch.device("cpu")
        with pytest.raises(kind, match="restart the policy" if kind is DeviceError else "invalid"):
            policy.predict(observation())


def test_an_early_end_leaves_the_action_and_says_so(folder):
    quick, thorough = Policy.from_checkpoint(folder, all_tokens=False), Policy.from_checkpoint(folder)
    first, whole = quick.predict(observation()), thorough.predict(observation())
    assert np.array_equal(first.action, whole.action) and whole.ar_complete and not first.ar_complete
    known = int(np.isfinite(first.token_confidence).sum())
    assert 1 <= known < 7 and np.isnan(first.autoregressive[0, known:]).all()
    assert np.allclose(first.autoregressive[0, :known], whole.autoregressive[0, :known])
    assert first.passes <= whole.passes <= 7 and math.isnan(first.path_distance)
    assert whole.mean_confidence <= first.mean_confidence <= quick.config.ensemble.theta
    assert quick.predict(observation(), mode="autoregressive").ar_complete, "the tokens are the action"


def test_noise_samples_report_their_spread_and_change_no_action(folder):
    one, many = Policy.from_checkpoint(folder), Policy.from_checkpoint(folder, noise_samples=6)
    single, sampled = one.predict(observation()), many.predict(observation())
    assert np.allclose(single.action, sampled.action, atol=1e-5) and sampled.noise_samples == 6
    assert math.isnan(single.spread_distance) and sampled.spread_distance > 0 and sampled.spread_angle > 0
    with pytest.raises(ConfigurationError, match="noise_samples"):
        Policy.from_checkpoint(folder, noise_samples=0)
