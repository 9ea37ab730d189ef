"""Messages to contracts and back, images by their own encoding, and the choice of images that belong together."""
from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image as Picture
from sensor_msgs.msg import CompressedImage, Image

from hybridvla.msg import ActionProposal, PolicyHeartbeat, SafetyStatus
from hybridvla_core import contracts
from hybridvla_core.errors import ObservationError
from hybridvla_core.safety import status as safety
from hybridvla_core.safety.status import Reason, State
from hybridvla_ros.messages import conversions
from hybridvla_ros.messages.arm_reader import ArmReader
from hybridvla_ros.messages.images import from_rgb, to_jpeg, to_rgb
from hybridvla_ros.observation.camera_sync import CameraSync


def wire(message):
    """Return the message as it arrives at the other end."""
    buffer = io.BytesIO()
    message.serialize(buffer)
    return type(message)().deserialize(buffer.getvalue())


def a_proposal(**changes):
    base = contracts.Pose(np.array([0.4, 0.1, 0.2]), np.array([1.0, 0.0, 0.0, 0.0]))
    goal = contracts.Pose(np.array([0.45, 0.1, math.nan]), np.array([0.8, 0.6, 0.0, 0.0]))
    action = np.arange(14.0).reshape(2, 7)
    prediction = contracts.Prediction(
        action=action, mode=contracts.Mode.ENSEMBLE, fused=True, diffusion=action + 1.0,
        autoregressive=np.full((1, 7), math.nan), ar_complete=False, token_confidence=np.linspace(0.0, 1.0, 7),
        mean_confidence=0.5, path_distance=0.01, path_angle=0.2, noise_seed=2 ** 63 + 5, stage_ms={"vision": 3.5},
        passes=2, noise_samples=8, spread_distance=0.5, spread_angle=0.25)
    target = contracts.ArmTarget("arm", "fr3_link0", base, 99.5, goal, contracts.DeltaBase.MEASURED, 0.25)
    values = {"stamp": 100.25, "epoch": 2 ** 63 - 1, "sequence": 7, "instruction_sequence": 3, "instruction": "put it",
              "valid_for": 10.0, "targets": (target, target), "action_period": 0.1, "observation_age": 0.125,
              "camera_spread": 0.5, "chunk": 2, "checkpoint_sha256": "ab", "prediction": prediction}
    return contracts.Proposal(**dict(values, **changes))


def test_a_proposal_survives_the_wire():
    sent = a_proposal()
    got = conversions.proposal_contract(wire(conversions.proposal_message(sent)))
    for name in ("stamp", "epoch", "sequence", "instruction_sequence", "instruction", "valid_for", "action_period",
                 "observation_age", "camera_spread", "chunk", "checkpoint_sha256", "kind"):
        assert getattr(got, name) == getattr(sent, name), name
    for name in ("diffusion", "autoregressive", "action", "token_confidence"):
        np.testing.assert_allclose(getattr(got.prediction, name), getattr(sent.prediction, name), rtol=1e-6)
    assert got.prediction.noise_seed == sent.prediction.noise_seed and not got.prediction.ar_complete
    for name in ("stage_ms", "passes", "noise_samples", "spread_distance", "spread_angle"):
        assert getattr(got.prediction, name) == getattr(sent.prediction, name), name
    assert [target.name for target in got.targets] == ["arm", "arm"]
    np.testing.assert_array_equal(got.targets[0].target.position, sent.targets[0].target.position)
    assert got.targets[0].base_stamp == 99.5 and got.targets[0].frame == "fr3_link0"
    assert got.targets[1].delta_base == contracts.DeltaBase.MEASURED and got.targets[1].gripper == 0.25



def a_status(**changes):
    here = contracts.Pose(np.array([0.4, 0.1, 0.2]), np.array([1.0, 0.0, 0.0, 0.0]))
    moved = safety.ArmSafety("left", here, here, 0.25, 0.5, True, contracts.GripperState.MOVING, 4, 0.125, 2.5, here, True)
    silent = safety.ArmSafety("right", here, None, math.nan, math.nan, False, contracts.GripperState.UNKNOWN, 0, math.nan)
    values = dict(state=State.HOLDING, reasons=Reason.WORKSPACE | Reason.DEADMAN, message="held", dry_run=True, speed_scale=0.5,
                  applied_scale=0.25, epoch=2 ** 63 - 1, sequence=7, instruction_sequence=3, proposal_age=1.5,
                  observation_age=math.nan, tick_cpu_ms=0.75, tick_wall_ms=1.25, arms=(moved, silent),
                  margins=(safety.LimitMargin("workspace/z_min", 0.5, "m", True),), counters={"accepted": 3, "holds": 1}, seed=9)
    return safety.SafetyStatus(**dict(values, **changes))


def plain(value):
    """Return a comparable form: arrays as lists, NaN as a word."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def test_every_field_of_a_status_survives_the_wire(monkeypatch):
    monkeypatch.setattr(conversions.rospy.Time, "now", lambda: conversions.rospy.Time(100, 250_000_000))
    sent = a_status()
    got = conversions.status_contract(wire(conversions.status_message(sent, {"left": "base", "right": "base"})))
    assert plain(got) == plain(dataclasses.replace(sent, stamp=100.25))
    assert got.commanded.keys() == {"left", "right"} and got.at_target == sent.at_target and got.waiting == sent.waiting


def test_a_status_that_knows_nothing_and_one_of_a_state_that_does_not_exist(monkeypatch):
    monkeypatch.setattr(conversions.rospy.Time, "now", lambda: conversions.rospy.Time(100))
    message = conversions.status_message(safety.SafetyStatus(State.INACTIVE, Reason.NONE, "", False, 1.0, 0.0), {})
    got = conversions.status_contract(wire(message))
    assert not got.arms and not got.at_target and not got.commanded and math.isnan(got.proposal_age)
    message.state = 9
    with pytest.raises(ValueError, match="9"):
        conversions.status_contract(message)


def test_a_hold_has_no_targets_and_no_numbers():
    message = wire(conversions.proposal_message(a_proposal(kind=contracts.Kind.HOLD, targets=(), prediction=None)))
    assert message.kind == ActionProposal.HOLD and not message.targets and math.isnan(message.mean_confidence)
    assert conversions.proposal_contract(message).prediction is None


@pytest.mark.parametrize("valid_for", [math.nan, math.inf, 1e300])
def test_a_duration_no_message_can_hold_is_one_no_filter_accepts(valid_for):
    message = wire(conversions.proposal_message(a_proposal(valid_for=valid_for)))
    assert conversions.proposal_contract(message).valid_for < 0.0


def test_an_unknown_kind_is_refused():
    message = conversions.proposal_message(a_proposal())
    message.kind = 9
    with pytest.raises(ValueError, match="9"):
        conversions.proposal_contract(message)


def test_the_message_constants_are_the_contracts():
    for state in State:
        assert getattr(SafetyStatus, state.name) == state
    for reason in Reason:
        if reason:
            assert getattr(SafetyStatus, reason.name) == reason
    for state in contracts.PolicyState:
        assert getattr(PolicyHeartbeat, state.name) == state
    for mode in contracts.Mode:
        assert getattr(ActionProposal, mode.name) == mode


# Images ------------------------------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def raw(encoding, data, channels, padding=0):
    rows = np.pad(data.reshape(5, 7 * channels), ((0, 0), (0, padding)))
    return Image(height=5, width=7, encoding=encoding, step=7 * channels + padding, data=rows.tobytes())


@pytest.mark.parametrize("encoding, data, channels", [
    ("rgb8", PIXELS, 3), ("bgr8", PIXELS[:, :, ::-1], 3), ("rgba8", np.dstack([PIXELS, PIXELS[:, :, :1]]), 4),
    ("bgra8", np.dstack([PIXELS[:, :, ::-1], PIXELS[:, :, :1]]), 4)])
@pytest.mark.parametrize("padding", [0, 11])
def test_an_image_is_read_by_its_own_encoding_and_row_step(encoding, data, channels, padding):
    np.testing.assert_array_equal(to_rgb(wire(raw(encoding, data, channels, padding)), "front"), PIXELS)


def test_mono_becomes_grey():
    got = to_rgb(raw("mono8", PIXELS[:, :, 0], 1), "front")
    assert got.shape == (5, 7, 3) and (got == PIXELS[:, :, :1]).all()


def test_raw_and_compressed_images_written_here_are_read_back():
    import rospy

    np.testing.assert_array_equal(to_rgb(wire(from_rgb(PIXELS, rospy.Time(1), "f")), "front"), PIXELS)
    smooth = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (48, 1, 3)) // np.array([1, 2, 4], np.uint8)
    again = to_rgb(wire(to_jpeg(smooth, rospy.Time(1), "f", quality=95)), "front")
    assert again.shape == smooth.shape and np.abs(again.astype(int) - smooth).mean() < 3.0
    assert np.abs(again[..., 0].astype(int) - again[..., 2]).max() > 100  # red and blue are not swapped for grey
    buffer = io.BytesIO()
    Picture.fromarray(PIXELS).save(buffer, "PNG")
    np.testing.assert_array_equal(to_rgb(CompressedImage(format="png", data=buffer.getvalue()), "front"), PIXELS)


@pytest.mark.parametrize("message, words", [
    (Image(height=5, width=7, encoding="16UC1", step=14, data=b"0" * 70), "16UC1"),
    (Image(height=5, width=7, encoding="rgb8", step=21, data=b"0" * 40), "40 bytes"),
    (Image(height=5, width=7, encoding="rgb8", step=20, data=b"0" * 100), "step"),
    (Image(encoding="rgb8"), "0x0"),
    (CompressedImage(format="jpeg", data=b"not a picture"), "decoded")])
def test_an_image_that_cannot_be_used_is_named(message, words):
    with pytest.raises(ObservationError, match=words) as caught:
        to_rgb(message, "wrist")
    assert "camera wrist" in str(caught.value)


# Observation sync --------------------------------------------------------------------------------------------------

def cameras():
    return CameraSync(("front", "wrist"), max_spread=0.02, max_age=0.5)


def test_the_newest_images_that_belong_together_are_taken():
    sync = cameras()
    for stamp in (1.000, 1.033, 1.066):
        sync.add("front", int(stamp * 1e9), f"front {stamp}")
    sync.add("wrist", int(1.030 * 1e9), "wrist 1.03")
    found, problem = sync.latest(1.1)
    assert problem == "" and found.messages == {"front": "front 1.033", "wrist": "wrist 1.03"}
    assert found.stamp_ns == int(1.030 * 1e9) and found.spread == pytest.approx(0.003)


def test_a_camera_that_is_missing_dead_or_ahead_is_named():
    sync = cameras()
    sync.add("front", int(1e9), "a")
    assert "camera wrist: no frame yet" in sync.latest(1.0)[1]
    sync.add("wrist", int(1e9), "b")
    assert sync.latest(1.1)[0] is not None
    sync.add("front", int(2e9), "a")
    found, problem = sync.latest(2.0)
    assert found is None and "camera wrist: no frame for 1.0 s" in problem
    sync.add("wrist", int(9e9), "b")
    assert "camera wrist" in sync.latest(2.0)[1] and "ahead" in sync.latest(2.0)[1]


def test_images_too_far_apart_are_not_paired():
    sync = cameras()
    sync.add("front", int(1.00e9), "a")
    sync.add("wrist", int(1.05e9), "b")
    found, problem = sync.latest(1.1)
    assert found is None and "0.050 s apart" in problem


def test_a_clock_set_back_starts_the_view_anew():
    sync = cameras()
    for stamp in (100.0, 5.0):
        for view in sync.views:
            sync.add(view, int(stamp * 1e9), stamp)
    assert sync.latest(5.1)[0].messages == {"front": 5.0, "wrist": 5.0}
    assert sync.received == {"front": 2, "wrist": 2}


# Joint states ------------------------------------------------------------------------------------------------------

def test_joints_are_found_by_name_and_a_short_message_is_passed_on_as_broken():
    reader = ArmReader("arm", ("j1", "j2"), (("f1", "f2"), 0.0, 0.08))
    state = reader.joints(["f1", "f2", "j2", "j1"], [0.02, 0.02, 2.0, 1.0], [0.0, 0.0, 0.2, 0.1], 0.0)
    assert state.gripper == pytest.approx(0.5)
    assert dict(zip(state.joint_names, state.joint_positions)) == {"j1": 1.0, "j2": 2.0}
    assert reader.joints(["f1", "f2"], [0.04, 0.04], [], 1.0) is None and reader.opening == 1.0
    assert np.isnan(reader.joints(["j1", "j2"], [1.0], [], 2.0).joint_positions[1])
