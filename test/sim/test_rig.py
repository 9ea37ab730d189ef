"""The simulated rig: scene, expert, physics, cameras, and its own count of broken limits."""
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import yaml

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_sim.fr3.rig import Rig, RigConfig
from hybridvla_sim.monitor import LimitMonitor, MonitorLimits
from hybridvla_sim.tasks.blocks.expert import GRASP, HOVER, PHASES, PLACE, WorldState, expert_action, expert_labels
from hybridvla_sim.tasks.blocks.pictures import SceneCamera
from hybridvla_sim.tasks.blocks.rollout import episode
from hybridvla_sim.tasks.blocks.task import BLOCK_SPACING, instruction, instructions, parse_instruction, sample_scene
from hybridvla_sim.tasks.blocks.world import TASK

pytestmark = pytest.mark.robot_computer

BLOCKS = np.array([[0.40, -0.15, 0.0225], [0.40, 0.0, 0.0225], [0.45, 0.15, 0.0225], [0.50, -0.05, 0.0225]])
PADS = np.array([[0.63, -0.21], [0.63, -0.07], [0.63, 0.07], [0.63, 0.21]])
WORLD = WorldState(np.array([0.3, 0.0, 0.48]), 0.0, 1.0, BLOCKS, np.array([0.3, 0.0, 0.0, 0.0]), PADS)


@pytest.fixture(scope="module")
def rig():
    rig = Rig(TASK)
    yield rig
    rig.close()


def scene(seed):
    return sample_scene(np.random.default_rng(seed))


def test_scenes_are_repeatable_and_roomy():
    assert np.array_equal(scene(5).block_xy, scene(5).block_xy)
    for seed in range(50):
        xy = scene(seed).block_xy
        assert (np.linalg.norm(xy[:, None] - xy[None], axis=2) + np.eye(4)).min() > BLOCK_SPACING


def test_instructions_round_trip():
    assert len(set(instructions())) == 16
    assert all(parse_instruction(instruction(block, pad)) == (block, pad) for block in range(4) for pad in range(4))
    assert parse_instruction("  Put the RED block on the blue pad. ") == (0, 2)
    for text in ("open the drawer", "put the pink block on the red pad", ""):
        with pytest.raises(HybridVLAError, match="cannot judge"):
            parse_instruction(text)


def test_the_variation_has_a_pad_of_a_new_colour_that_every_sentence_names():
    varied = TASK.varied("colour")
    texts = {f"put the {colour} block on the purple pad" for colour in ("red", "green", "blue", "yellow")}
    assert set(varied.instructions()) == texts and TASK.variation == "" and len(TASK.instructions()) == 16
    assert {spec.instruction for spec in varied.draw(2_000_001, 40, False)} == texts
    switched = varied.draw(2_000_001, 10, True)
    assert all(spec.second in texts and spec.second != spec.instruction for spec in switched)
    rig, usual, text = Rig(varied), Rig(TASK), "put the green block on the purple pad"
    pad = rig.world.index.pad_geoms[3]
    assert not np.allclose(rig.model.geom_rgba[pad], usual.model.geom_rgba[pad])
    rig.reset(np.random.default_rng(3))
    usual.reset(np.random.default_rng(3))
    np.testing.assert_array_equal(rig.data.qpos, usual.data.qpos)
    label, known = rig.world.expert(text), usual.world.expert("put the green block on the yellow pad")
    np.testing.assert_array_equal(label.delta, known.delta)
    assert not rig.world.success(text)
    for refused, world in ((text, usual.world), ("put the green block on the yellow pad", rig.world)):
        with pytest.raises(HybridVLAError, match="cannot judge"):
            world.success(refused)
    with pytest.raises(HybridVLAError, match="no variation 'weather'; use one of object, .*, colour"):
        TASK.varied("weather")


def held(block, tool, pad_block=None):
    position = BLOCKS.copy()
    position[block] = tool
    return replace(WORLD, tool=np.array(tool), opening=0.56, block_pos=position)


@pytest.mark.parametrize("state, phase, height", [
    (WORLD, "pregrasp", HOVER),
    (replace(WORLD, tool=np.array([0.40, -0.15, HOVER]), yaw=0.3), "grasp", GRASP),
    (replace(WORLD, tool=np.array([0.40, -0.15, HOVER]), yaw=-0.3), "pregrasp", HOVER),
    (held(0, [0.40, -0.15, 0.03]), "lift", HOVER),
    (held(0, [0.40, -0.15, HOVER]), "above", HOVER),
    (held(0, [0.63, -0.07, HOVER]), "release", PLACE),
    (replace(WORLD, tool=np.array([0.40, -0.15, 0.05]), opening=0.0), "reopen", HOVER),
    (replace(WORLD, tool=np.array([0.45, -0.1, 0.05])), "up", HOVER),
    (held(1, [0.40, 0.0, HOVER]), "putdown", PLACE),
    (held(1, [0.63, -0.07, HOVER]), "clear", HOVER),
    (replace(WORLD, block_pos=np.vstack([[0.63, -0.07, 0.0225], BLOCKS[1:]])), "retreat", HOVER)])
def test_the_expert_knows_what_to_do_next(state, phase, height):
    action = expert_action(state, 0, 1)
    assert action.phase == phase
    assert action.position[2] == pytest.approx(height)


def test_labels_agree_with_the_expert():
    actions, phases = expert_labels(WORLD)
    action = expert_action(WORLD, 2, 3)
    assert np.allclose(actions[11, :3], action.position - WORLD.tool, atol=1e-6)
    assert PHASES[phases[11]] == action.phase and actions[11, 6] == action.opening


def test_the_rig_settles_where_it_is_told(rig):
    rig.reset(np.random.default_rng(1))
    target, quaternion = np.array([0.45, 0.1, 0.25]), np.array([math.cos(0.2), math.sin(0.2), 0.0, 0.0])
    start = rig.arm_state().pose.position
    for tick in range(200):
        rig.set_equilibrium_pose(start + (tick + 1) / 200 * (target - start), quaternion)
        rig.step(0.005)
    rig.step(1.0)
    pose = rig.arm_state().pose
    assert np.linalg.norm(pose.position - target) < 0.002
    assert abs(pose.quaternion @ quaternion) > math.cos(0.01)


def test_time_passes_only_in_steps_and_alike(rig):
    finals = []
    for _ in range(2):
        rig.reset(np.random.default_rng(2))
        rig.set_equilibrium_pose([0.4, 0.0, 0.4], [1.0, 0.0, 0.0, 0.0])
        for _ in range(40):
            rig.step(0.005)
        assert rig.time == pytest.approx(0.2)
        finals.append(rig.arm_state().joint_positions)
    assert np.array_equal(*finals)


def test_the_way_back_is_slow_and_ends_at_the_start(rig):
    rig.reset(np.random.default_rng(3))
    rig.set_equilibrium_pose([0.5, 0.2, 0.2], [1.0, 0.0, 0.0, 0.0])
    rig.step(2.0)
    rig.go_to_start()
    assert not rig.at_start and not rig.arm_state().ready
    fastest = 0.0
    while not rig.at_start and rig.time < 15:
        rig.step(0.05)
        fastest = max(fastest, np.abs(rig.arm_state().joint_velocities).max())
    assert rig.at_start and fastest < 1.5


@pytest.mark.parametrize("seed, switch_at", [(11, None), (12, 2)])
def test_the_expert_succeeds_in_the_rig(rig, seed, switch_at):
    success, _ = episode(rig, seed, switch_at=switch_at)
    assert success


def test_cameras_show_all_colours(rig):
    rig.reset(np.random.default_rng(4))
    image = rig.render("front").astype(int)
    assert image.shape == (256, 256, 3)
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    for share in ((red > green + 60) & (red > blue + 60), (green > red + 60) & (green > blue + 60),
                  (blue > red + 60) & (blue > green + 60), (red > blue + 90) & (green > blue + 90)):
        assert share.sum() > 300
    assert rig.render("wrist").std() > 10
    assert rig.camera_info("front")["width"] == 256
    with pytest.raises(HybridVLAError, match="no camera"):
        rig.render("back")


LIMITS = MonitorLimits((0.2, -0.4, 0.0), (0.7, 0.4, 0.6), speed=0.3, rotation_speed=1.0)
DOWN = [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("position, quaternion, after, counted", [
    ([math.nan, 0, 0.3], DOWN, 0.005, "not_finite"), ([0.4, 0, 0.3], [2.0, 0, 0, 0], 0.005, "quaternion"),
    ([0.8, 0, 0.3], DOWN, 10.0, "workspace_x"), ([0.4, 0, -0.1], DOWN, 10.0, "workspace_z"),
    ([0.402, 0, 0.3], DOWN, 0.005, "speed_step"),
    ([0.4, 0, 0.3], [math.cos(0.05), math.sin(0.05), 0, 0], 0.005, "rotation_speed_step")])
def test_the_monitor_counts_each_kind(position, quaternion, after, counted):
    monitor = LimitMonitor(LIMITS)
    monitor.target(0.0, [0.4, 0, 0.3], DOWN)
    assert monitor.violations == 0
    monitor.target(after, position, quaternion)
    assert monitor.counts[counted] == 1


@pytest.mark.parametrize("metres, counted", [(0.0058, 0), (0.0098, 2)])
def test_the_monitor_judges_a_step_over_lost_messages_by_its_whole_time(metres, counted):
    monitor = LimitMonitor(LIMITS)
    for index, time in enumerate((0.0, 0.005, 0.025)):
        monitor.target(time, [0.4 + (metres if index == 2 else 0.0), 0, 0.3], DOWN)
    assert monitor.violations == counted
    assert ("speed" in monitor.last_violation) == bool(counted)


def test_a_clock_set_back_is_no_breach_of_speed():
    monitor = LimitMonitor(LIMITS)
    for index, time in enumerate((10.0, 10.005, 9.0, 9.005)):
        monitor.target(time, [0.4 + index * 0.001, 0, 0.3], DOWN)
    assert monitor.violations == 0


def test_the_monitor_sees_a_crowd_of_small_steps():
    monitor = LimitMonitor(LIMITS)
    for index in range(60):  # each step is short, but the steps come twice as often as allowed
        monitor.target(index * 0.0025, [0.4 + index * 0.0014, 0, 0.3], DOWN)
    assert monitor.counts["speed_window"] > 0


def test_a_target_that_stays_breaks_no_limit_anew():
    monitor = LimitMonitor(LIMITS)
    for index in range(40):
        monitor.target(index * 0.005, [0.4 if index == 0 else 0.5, 0, 0.3], DOWN)
    assert monitor.counts == {"speed_step": 1, "speed_window": 1}


def test_targets_that_are_no_poses_do_not_reach_the_controller(rig):
    rig.reset(np.random.default_rng(6))
    before = rig.controller.target_position.copy()
    rig.set_equilibrium_pose([math.nan, 0, 0], DOWN)
    assert np.array_equal(rig.controller.target_position, before)
    with pytest.raises(HybridVLAError, match="gripper"):
        rig.command_gripper(math.nan)


def test_limits_come_from_the_configuration_and_differ_from_the_model(rig):
    limits = yaml.safe_load((ROOT / "config/robots/fr3.yaml").read_text())["arms"][0]["joint_limits"]
    modelled = rig.model.joint("fr3_joint1").range
    assert limits["upper_rad"][0] == 2.3093 and modelled[1] == pytest.approx(2.7437)


def test_pictures_for_training_equal_the_rigs_own(rig):
    from PIL import Image

    rig.reset(np.random.default_rng(7))
    camera = SceneCamera()
    camera.pose(rig.world.state())
    camera.data.qpos[camera.index.arm_qpos] = rig.data.qpos[rig.index.arm_qpos]
    import mujoco

    mujoco.mj_forward(camera.model, camera.data)
    seen = np.asarray(Image.fromarray(rig.render("front")).resize((128, 128), Image.BICUBIC)).astype(int)
    assert np.abs(camera.picture().astype(int) - seen).mean() < 0.5
    assert set(range(1, 9)) <= set(np.unique(camera.classes()))
    camera.close()


def test_a_rig_with_limits_counts_them():
    rig = Rig(TASK, RigConfig(limits=LIMITS))
    rig.reset(np.random.default_rng(8))
    rig.set_equilibrium_pose([0.9, 0.0, 0.3], DOWN)
    assert rig.monitor.violations == 1
