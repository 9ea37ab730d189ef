"""Camera configurations: what is refused, the shipped files, and a policy moved to another rig's cameras."""
from __future__ import annotations

import pytest

from hybridvla_core.configuration import from_mapping, load_file
from hybridvla_core.errors import ConfigurationError, ObservationError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.cameras import CameraRig, CameraSource
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import check_fit
from hybridvla_core.robots.config import RobotConfig

RIGS = sorted((ROOT / "config/cameras").glob("*.yaml"))
FRONT = {"view": "front", "image_topic": "/f"}


@pytest.mark.parametrize("path", [path for path in RIGS if not path.name.startswith("node_")], ids=lambda path: path.stem)
def test_every_shipped_rig_is_read(path):
    rig = load_file(CameraRig, path)
    assert all(camera.image_topic.startswith("/") for camera in rig.cameras)


def test_the_dual_arm_rigs_have_the_views_of_the_dual_arm_policy():
    policy = load_file(PolicyConfig, ROOT / "config/policies/agilex.yaml")
    for name in ("agilex_orbbec", "agilex_realsense"):
        moved = policy.with_cameras(load_file(CameraRig, ROOT / f"config/cameras/{name}.yaml"))
        assert [camera.view for camera in moved.cameras] == [camera.view for camera in policy.cameras]


@pytest.mark.parametrize("cameras, words", [
    ([], "1 to 3"), ([FRONT, FRONT], "different views"), ([FRONT, dict(FRONT, view="wrist")], "image_topic /f"),
    ([dict(FRONT, view="")], "empty view name"), ([dict(FRONT, image_topic="")], "image_topic is empty"),
    ([dict(FRONT, serial="1")], "serial_parameter"), ([dict(FRONT, serial=" ", serial_parameter="/p")], "serial is empty"),
    ([dict(FRONT, serial="1", serial_parameter="/p"),
      {"view": "wrist", "image_topic": "/w", "serial": "1", "serial_parameter": "/q"}], "serial 1"),
    ([dict(FRONT, seriall="1")], "unknown key"), ([dict(FRONT, serial=17, serial_parameter="/p")], "serial")])
def test_what_cannot_be_meant_is_refused(cameras, words):
    with pytest.raises(ConfigurationError, match=words):
        from_mapping(CameraRig, {"cameras": cameras}, "rig")


@pytest.mark.parametrize("key, value", [("max_age_s", 0.0), ("max_age_s", 11.0), ("max_spread_s", 2.0)])
def test_bounds_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigurationError, match=key):
        from_mapping(CameraRig, {"cameras": [FRONT], key: value}, "rig")


def test_a_policy_moves_to_another_rig_with_the_same_views_only():
    config = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
    robot = load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml")

    class Trained:
        convention, cameras = config.convention, ("front",)

    moved = config.with_cameras(CameraRig((CameraSource("front", "/other/image_raw"),), max_age_s=0.2))
    assert moved.cameras[0].image_topic == "/other/image_raw"
    assert moved.max_observation_age_s == 0.2 and moved.max_camera_spread_s == config.max_camera_spread_s
    check_fit(Trained, moved, robot)


def test_a_policy_trained_for_three_views_is_refused_on_a_rig_with_two():
    config = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
    robot = load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml")

    class Trained:
        convention, cameras = config.convention, ("front", "left", "right")

    two = config.with_cameras(CameraRig((CameraSource("front", "/f"), CameraSource("left", "/l"))))
    with pytest.raises(ConfigurationError, match=r"front.*left.*right.*order.*front.*left"):
        check_fit(Trained, two, robot)


def test_an_image_of_another_size_is_named():
    with pytest.raises(ObservationError, match="camera front sends images of 1280x720"):
        CameraSource("front", "/f", width_px=640, height_px=480).check_size(720, 1280)
