"""Open X-Embodiment sets in the layout of TensorFlow Datasets, with checksums: they are read, standardised, or refused."""
from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation
from tfrecord import example_pb2

from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.data.rlds.convert import convert
from hybridvla_core.data.rlds.records import masked_crc, records
from hybridvla_core.errors import DataError

STEPS = 6


def png(shade):
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 48, 3), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def serialised(**features):
    example = example_pb2.Example()
    for key, values in features.items():
        feature = example.features.feature["steps/" + key.replace("__", "/")]
        if isinstance(values, list):
            feature.bytes_list.value.extend(values)
        else:
            feature.float_list.value.extend(np.asarray(values, dtype=float).ravel().tolist())
    return example.SerializeToString()


def write(folder, name, examples, split="train"):
    folder.mkdir(exist_ok=True)
    (folder / "features.json").write_text("{}")
    path = folder / f"{name}-{split}.tfrecord-00000-of-00001"
    with open(path, "wb") as stream:
        for data in examples:
            head = struct.pack("<Q", len(data))
            stream.write(head + struct.pack("<I", masked_crc(head)) + data + struct.pack("<I", masked_crc(data)))
    return path


def taco(seed=0):
    rng = np.random.default_rng(seed)
    action, state = rng.normal(size=(STEPS, 7)) * 0.01, rng.normal(size=(STEPS, 15))
    action[:, 6], state[:, 6] = [1, 1, -1, -1, -1, 1], rng.uniform(0.0, 0.08, STEPS)
    data = serialised(action__rel_actions_world=action, observation__robot_obs=state,
                      observation__rgb_static=[png(10 * i) for i in range(STEPS)],
                      observation__rgb_gripper=[png(9 * i) for i in range(STEPS)],
                      observation__natural_language_instruction=[b"open the drawer"] * STEPS)
    return data, action, state


def converted(tmp_path, name, examples):
    write(tmp_path / "rlds", name, examples)
    convert(tmp_path / "rlds", tmp_path / "set")
    data = LeRobotDataset(tmp_path / "set")
    return data, data.rows(0)


def test_the_checksum_is_that_of_the_standard():
    """The check value of CRC-32C is 0xE3069283, rotated and offset as TFRecord requires."""
    assert masked_crc(b"123456789") == (((0xE3069283 >> 15) | (0xE3069283 << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_taco_play_becomes_measured_movement_and_a_gripper_of_one_open(tmp_path):
    example, _, state = taco()
    data, rows = converted(tmp_path, "taco_play", [example, taco(1)[0]])
    np.testing.assert_allclose(rows.action[:, :3], np.diff(state[:, :3], axis=0), atol=1e-6)
    assert rows.action[:, 6].tolist() == [1, 1, 0, 0, 0]
    np.testing.assert_allclose(rows.state[:, :6], state[:-1, :6], atol=1e-6)
    np.testing.assert_allclose(rows.state[:, 6], state[:-1, 6] / 0.08, atol=1e-5)
    sample = data.sample(3, chunk=4)
    assert sample.instruction == "open the drawer" and sample.padding.tolist() == [False] * 2 + [True] * 2
    assert list(sample.images) == ["primary", "wrist"] and abs(int(sample.images["primary"].mean()) - 30) < 4
    assert len(data.episodes) == 2 and data.fps == 15.0


def test_fractal_reads_quaternions_and_relative_gripper_commands(tmp_path):
    turns = Rotation.random(STEPS, random_state=3)
    pose = np.concatenate([np.arange(STEPS * 3).reshape(STEPS, 3) * 0.01, turns.as_quat()], axis=1)
    _, rows = converted(tmp_path, "fractal20220817_data", [serialised(
        action__world_vector=np.full((STEPS, 3), 0.01), action__rotation_delta=np.full((STEPS, 3), 0.02),
        action__gripper_closedness_action=np.array([0, 0, 1, 0, -1, 0]), observation__base_pose_tool_reached=pose,
        observation__gripper_closed=np.array([0, 0, 0, 1, 1, 0]), observation__image=[png(50)] * STEPS,
        observation__natural_language_instruction=[b"pick coke can"] * STEPS)])
    assert rows.action[:, 6].tolist() == [1, 1, 0, 0, 1, 1] and rows.state[:, 6].tolist() == [1, 1, 1, 0, 0, 1]
    recovered = Rotation.from_euler("xyz", rows.state[:, 3:6])
    assert (recovered * turns.inv()).magnitude().max() < 1e-5


def test_bridge_takes_the_reached_movement_and_drops_the_ends(tmp_path):
    rng = np.random.default_rng(5)
    state, action = rng.normal(size=(STEPS, 7)) * 0.1, rng.normal(size=(STEPS, 7))
    action[:, 6] = [1.0, 1.0, 0.6, 0.3, 0.0, 0.0]
    _, rows = converted(tmp_path, "bridge_dataset", [serialised(
        action=action, observation__state=state, observation__image_0=[png(50)] * STEPS,
        language_instruction=[b"fold the cloth"] * STEPS)])
    assert len(rows.state) == STEPS - 2
    np.testing.assert_allclose(rows.state[0], state[1], atol=1e-6)
    np.testing.assert_allclose(rows.state[:-1, :3] + rows.action[:-1, :3], rows.state[1:, :3], atol=1e-6)
    reached = Rotation.from_euler("xyz", rows.action[:-1, 3:6]) * Rotation.from_euler("xyz", rows.state[:-1, 3:6])
    assert (reached.inv() * Rotation.from_euler("xyz", rows.state[1:, 3:6])).magnitude().max() < 1e-6
    assert rows.action[:, 6].tolist() == [1, 0, 0, 0]      # a moving gripper counts as where it arrives


def test_a_flipped_byte_is_flagged_and_the_next_record_is_read(tmp_path):
    path = write(tmp_path / "rlds", "taco_play", [taco(i)[0] for i in range(3)])
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(bytes(whole))
    out = convert(tmp_path / "rlds", tmp_path / "set")
    assert out.episodes == 2 and "#1" in out.provenance.flagged[0]["episode"]
    assert "checksum" in out.provenance.flagged[0]["reason"]


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_cut_file_gives_what_is_whole(tmp_path, keep):
    path = write(tmp_path / "rlds", "taco_play", [taco(i)[0] for i in range(3)])
    path.write_bytes(path.read_bytes()[:int(keep * path.stat().st_size)])
    found = [isinstance(record, bytes) for _, record in records(path)]
    assert found == [True] * (len(found) - 1) + [False] and len(found) == int(3 * keep) + 1


def test_an_episode_that_does_not_fit_is_flagged_by_reason(tmp_path):
    missing = serialised(observation__rgb_static=[png(1)] * STEPS, observation__rgb_gripper=[png(1)] * STEPS)
    nan = taco()[0]
    example = example_pb2.Example()
    example.ParseFromString(nan)
    example.features.feature["steps/observation/robot_obs"].float_list.value[20] = float("nan")
    numbers = serialised(observation__rgb_static=np.zeros(STEPS), observation__rgb_gripper=[png(1)] * STEPS)
    write(tmp_path / "rlds", "taco_play", [missing, example.SerializeToString(), taco(1)[0], numbers])
    out = convert(tmp_path / "rlds", tmp_path / "set")
    reasons = [entry["reason"] for entry in out.provenance.flagged]
    assert out.episodes == 1 and "is missing" in reasons[0] and "not finite" in reasons[1]
    assert "steps/observation/rgb_static holds numbers" in reasons[2]


def test_unknown_sets_are_refused_by_name(tmp_path):
    write(tmp_path / "rlds", "some_other_set", [taco()[0]])
    with pytest.raises(DataError, match="some_other_set: no description.*bridge_dataset, fractal20220817_data, taco_play"):
        convert(tmp_path / "rlds", tmp_path / "set")
    with pytest.raises(DataError, match="no NAME-SPLIT.tfrecord"):
        convert(tmp_path, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_output_that_cannot_be_written_is_refused_before_the_first_record(tmp_path):
    write(tmp_path / "rlds", "taco_play", [taco()[0]])
    (tmp_path / "set").mkdir()
    (tmp_path / "set/mine.txt").write_text("mine")
    read = []
    with pytest.raises(DataError, match="set: exists and is not empty; choose another folder, nothing is overwritten$"):
        convert(tmp_path / "rlds", tmp_path / "set", told=read.append)
    with pytest.raises(DataError, match="mine.txt/set: cannot be written"):
        convert(tmp_path / "rlds", tmp_path / "set/mine.txt/set", told=read.append)
    assert not read and [path.name for path in (tmp_path / "set").iterdir()] == ["mine.txt"]


def test_missing_files_of_a_split_are_flagged_by_number_and_those_of_two_versions_refused(tmp_path):
    whole = write(tmp_path / "rlds", "taco_play", [taco()[0]])
    numbers = (0, 3, 4)
    for number in numbers:
        (tmp_path / f"rlds/taco_play-train.tfrecord-{number:05d}-of-00006").write_bytes(whole.read_bytes())
    with pytest.raises(DataError, match="taco_play-train is there in 1 and in 6 files, so of two versions"):
        convert(tmp_path / "rlds", tmp_path / "set")
    whole.rename(tmp_path / "rlds/taco_play-val.tfrecord-00000-of-00001")
    out = convert(tmp_path / "rlds", tmp_path / "set")
    (flag,) = out.provenance.flagged
    assert out.episodes == 4 and flag["episode"] == "taco_play-train" and flag["kept"]
    assert flag["reason"].startswith("3 of its 6 files are missing: 00001, 00002, 00005; if it should be")


@pytest.mark.parametrize("split, trains", [("train", True), ("val", False)])
def test_a_set_without_an_episode_to_train_from_says_so(tmp_path, split, trains):
    write(tmp_path / "rlds", "taco_play", [taco()[0]], split)
    out = convert(tmp_path / "rlds", tmp_path / "set")
    said = [entry["reason"] for entry in out.provenance.flagged if entry["episode"] == "set" and entry["kept"]]
    assert out.trains == trains and len(said) == (not trains)
    assert all("no episode is left for training: all 1 are for validation" in reason for reason in said)
    assert len(LeRobotDataset(tmp_path / "set").frames_of("train")) == (len(LeRobotDataset(tmp_path / "set")) if trains else 0)
