"""Moves that experts share: label transitions are wider than a policy's perception errors, and yaw has no jumps."""
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_sim import tasks
from hybridvla_sim.suite import make_rig
from hybridvla_sim.taskkit.moves import Grip, Tool, carry, fetch

ROBOT = load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "diffusion")[1]
HALF = np.pi / 4


def tool(x, z, yaw=0.0, opening=1.0):
    return Tool(np.array([x, 0.0, z]), Rotation.from_euler("z", yaw), opening)


def hang(world, yaw):
    world.stand("hanger", (0.58, 0.0), yaw)
    world.lay("frame", (0.55, 0.0), 0.156, yaw)


#: Task, range of its heading, function that turns its thing, and phases whose label has to be continuous.
TURNED = [("toilet_seat_down", HALF, lambda world, yaw: world.stand("toilet", (0.56, 0.0), yaw), "approach"),
          ("frame_off_hanger", HALF, hang, "pregrasp"),
          ("close_box", np.pi / 8, lambda world, yaw: world.stand("box", (0.5, -0.05), yaw), "approach"),
          ("close_fridge", 0.55, lambda world, yaw: world.stand("fridge", (0.57, -0.07), yaw), "approach"),
          ("close_laptop_lid", 0.5, lambda world, yaw: world.stand("laptop", (0.46, 0.0), yaw), "approach"),
          ("phone_on_base", 1.2, lambda world, yaw: world.lay("phone", (0.4, 0.0), 0.011, yaw), "pregrasp"),
          ("umbrella_out_of_stand", 1.2, lambda world, yaw: world.lay("umbrella", (0.5, 0.0), 0.0045, yaw), "pregrasp"),
          ("water_plants", 0.6, lambda world, yaw: world.lay("can", (0.5, -0.1), 0.0005, np.pi / 2 + yaw), "pregrasp"),
          ("sweep_to_dustpan", 1.05, lambda world, yaw: world.lay("broom", (0.5, 0.1), 0.0005, yaw), "pregrasp")]


@pytest.mark.parametrize("name, most, turn, phase", TURNED)
def test_the_yaw_of_a_label_has_no_jump_over_the_headings_of_the_scenes(name, most, turn, phase):
    import mujoco

    rig = make_rig(tasks.load(name), ROBOT)
    rig.reset(np.random.default_rng(3))
    text, yaws = rig.task.instructions()[0], []
    for heading in np.linspace(-most, most, 41):
        turn(rig.world, heading)
        mujoco.mj_forward(rig.model, rig.data)
        label = rig.world.expert(text)
        assert label.phase == phase
        yaws.append(float(label.yaw[0]))
    rig.close()
    assert np.abs(np.diff(yaws)).max() < 0.3 and np.ptp(yaws) == pytest.approx(2 * most, abs=1e-6)


def test_a_hand_that_rises_beside_a_box_keeps_its_yaw_instead_of_turning_by_a_half_and_back():
    rig = make_rig(tasks.load("close_box"), ROBOT)
    rig.reset(np.random.default_rng(3))
    for yaw in (1.2, 1.57, 1.9):
        wanted = rig.world.next(Tool(np.array([0.4, 0.3, 0.1]), Rotation.from_euler("z", yaw), 0.0), "shut")
        assert wanted.phase == "up" and wanted.angles[2] == pytest.approx(yaw)
    rig.close()


def test_where_a_thing_is_carried_the_yaw_is_that_of_its_place_however_the_hand_is_turned():
    place = np.array([0.5, 0.0, 0.05])
    for hand in (-1.2, 0.0, 1.2):
        yaws = [carry(tool(0.3, 0.25, hand, 0.5), place, yaw, 0.25, np.pi).angles[2] for yaw in np.linspace(-0.7, 0.7, 29)]
        assert np.abs(np.diff(yaws)).max() < 0.1
    assert carry(tool(0.5, 0.25, np.pi, 0.5), place, 0.0, 0.25, np.pi).phase == "above", "no half turn on the way down"


def test_high_above_a_thing_the_hand_goes_down_from_farther_beside_it_than_low():
    grip = Grip(np.array([0.5, 0.0, 0.02]), 0.2, 0.5)
    assert [fetch(tool(0.5 + off, height), grip).phase for off, height in (
        (0.02, 0.12), (0.03, 0.12), (0.02, 0.05), (0.01, 0.05))] == ["grasp", "pregrasp", "up", "grasp"]
    place = np.array([0.5, 0.0, 0.05])
    phases = [carry(tool(0.5 + off, height, opening=0.5), place, 0.0, 0.25, near=0.02, low=0.01).phase for off, height in (
        (0.018, 0.25), (0.025, 0.25), (0.018, 0.10), (0.008, 0.10))]
    assert phases == ["release", "above", "lift", "release"]
