"""Variations: every task has all of them; `object` shows things smaller than any demonstration does, at rest in place."""
import contextlib

import mujoco
import numpy as np
import pytest

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_sim import tasks
from hybridvla_sim.experts import ExpertPolicy
from hybridvla_sim.suite import Suite, make_rig
from hybridvla_sim.taskkit.looks import HEIGHT_M, SIZES, UNSEEN_SIZES, VARIATIONS, snapshot

CONFIGS = {kind: load_configs(ROOT / f"config/policies/{policy}.yaml", ROOT / f"config/robots/{robot}.yaml", "diffusion")
           for kind, policy, robot in (("fr3", "tiny", "sim_fr3"), ("piper", "agilex", "agilex"))}
EVERY = [(kind, name) for kind in CONFIGS for name in tasks.of_rig(kind)]
#: Unseen objects of `blocks` differ in shape, and the tasks with lids draw sizes in every scene.
SIZED = [(kind, name) for kind, name in EVERY if name != "blocks"]
LIDS = ("close_box", "close_laptop_lid", "close_fridge", "fridge_or_phone")


def rig_of(kind, task):
    return contextlib.closing(make_rig(task, CONFIGS[kind][1]))


@pytest.mark.parametrize("kind, name", EVERY)
def test_every_task_has_every_variation_and_names_another_one(kind, name):
    task = tasks.load(name, rig=kind)
    assert [task.varied(variation).variation for variation in VARIATIONS] == list(VARIATIONS) and task.variation == ""
    with pytest.raises(HybridVLAError, match=f"task '{name}' has no variation 'weather'"):
        task.varied("weather")


@pytest.mark.parametrize("kind, name", SIZED)
def test_an_unseen_object_is_smaller_than_any_in_a_demonstration(kind, name):
    def sizes(variation):
        task = tasks.load(name, rig=kind)
        with rig_of(kind, task.varied(variation) if variation else task) as rig:
            full, found = rig.model.geom_size.copy(), set()
            for seed in range(3):
                rig.reset(np.random.default_rng(seed))
                found.update(np.round(rig.model.geom_size[full > 0.0] / full[full > 0.0], 6))
        return sorted(found - {1.0})

    low, high = UNSEEN_SIZES
    unseen, plain = sizes("object"), sizes("")
    assert len(unseen) == 3 and low <= unseen[0] <= unseen[-1] <= high < SIZES[0]
    assert all(SIZES[0] <= size <= SIZES[1] for size in plain) and bool(plain) == (name in LIDS)


@pytest.mark.parametrize("kind, name", EVERY)
def test_light_and_background_leave_things_where_they_stand_without(kind, name):
    def poses(variation):
        task = tasks.load(name, rig=kind)
        with rig_of(kind, task.varied(variation) if variation else task) as rig:
            rig.reset(np.random.default_rng(11))
            return rig.data.qpos.copy(), rig.model.body_pos.copy()

    plain = poses("")
    for variation in ("light", "background"):
        for found, wanted in zip(poses(variation), plain):
            assert np.array_equal(found, wanted), variation


def test_unseen_bottles_and_racks_stand_where_the_seen_ones_do():
    def bottle(variation):
        task = tasks.load("wine_at_rack", rig="fr3")
        with rig_of("fr3", task.varied(variation) if variation else task) as rig:
            rig.reset(np.random.default_rng(2000001))
            return rig.world.where("bottle")[:2]

    np.testing.assert_allclose(bottle("object"), bottle(""), atol=5e-3)


@pytest.mark.parametrize("name", LIDS)
def test_scenes_that_draw_sizes_look_for_contacts_where_shapes_are(name):
    """The engine's bounding-volume tree keeps the size with which a shape was compiled, and other sizes would slip through."""
    with rig_of("fr3", tasks.load(name, rig="fr3")) as rig:
        rig.reset(np.random.default_rng(0))
        assert rig.model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_MIDPHASE


@pytest.mark.parametrize("kind, name", SIZED)
def test_what_is_smaller_rests_where_it_is_put(kind, name):
    with rig_of(kind, tasks.load(name, rig=kind).varied("object")) as rig:
        free = [rig.model.joint(index).name for index in range(rig.model.njnt)
                if rig.model.jnt_type[index] == mujoco.mjtJoint.mjJNT_FREE]
        for seed in range(4):
            rig.reset(np.random.default_rng(seed))
            before = {body: rig.data.body(body).xpos.copy() for body in free}
            rig.step(0.1)
            for body, place in before.items():
                assert np.linalg.norm(rig.data.body(body).xpos - place) < 0.002, (seed, body)
            assert not any(rig.world.success(text) for text in rig.task.instructions())


@pytest.mark.parametrize("variation", VARIATIONS)
def test_the_tray_varies_as_it_says(variation):
    plain = tasks.load("tray", rig="piper")
    scenes, hands = [], []
    for task in (plain, plain.varied(variation)):
        with rig_of("piper", task) as rig:
            rig.reset(np.random.default_rng(9))
            before = rig.data.body("tray").xpos[2]
            rig.step(0.1)
            assert abs(rig.data.body("tray").xpos[2] - before) < 0.001, "it rests on the table"
            scenes.append(snapshot(rig.model))
            label = rig.world.expert(task.instructions()[0])
            hands.append(label.delta)
    changed = {name for name, value in scenes[0].items() if not np.array_equal(value, scenes[1][name])}
    assert changed == {"object": {"geom_rgba", "geom_size"}, "background": {"geom_rgba"}, "height": {"geom_pos"},
                       "light": {"light_dir", "light_diffuse"}}[variation]       # its lamp has no ambient light
    up = [0.0, 0.0, HEIGHT_M if variation == "height" else 0.0]
    np.testing.assert_allclose(hands[1] - hands[0], np.tile(up, (2, 1)), atol=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("kind, name, variation", [(kind, name, "object") for kind, name in SIZED] + [
    ("piper", "tray", variation) for variation in VARIATIONS if variation != "object"])
def test_the_expert_does_it_in_a_scene_that_varies(kind, name, variation):
    (config, robot), task = CONFIGS[kind], tasks.load(name, rig=kind).varied(variation)
    suite = Suite(ExpertPolicy(config.convention, [camera.view for camera in config.cameras]), config, robot, task)
    with contextlib.closing(suite.rig):
        result = suite.run(task.draw(2_000_101, 1, switched=False)[0])
    assert result["success"], [row["phase"] for row in result["decisions"]]
    assert result["violations"] == 0
