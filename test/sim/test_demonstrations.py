"""Demonstrations: the experts' labels with grounding, in the data sets' format; repeatable, resumable, refused by name."""
import hashlib
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest

from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_core.training.hybrid.config import DemonstrationConfig
from hybridvla_sim import tasks
from hybridvla_sim.demonstrations import build as building
from hybridvla_sim.demonstrations.build import Order, build
from hybridvla_sim.demonstrations.record import DRIVEN, SAMPLED, Recorder, Settings
from hybridvla_sim.experts import expert_action
from hybridvla_sim.tasks.blocks.expert import PHASES

CONFIG, ROBOT = load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "diffusion")
SINGLE = Settings("fr3", ("front", "wrist"), states=6)
ORDER = Order(("phone_on_base", "wine_at_rack"), 2, 5, 0.5, 0.5, SINGLE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return build(ORDER, tmp_path_factory.mktemp("made") / "two", CONFIG.convention, ROBOT)


def digests(folder):
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_is_a_whole_data_set_with_driven_and_sampled_episodes(made):
    found = LeRobotDataset(made)
    assert found.description.views == {"front": (128, 128), "wrist": (128, 128)} and found.description.grounded
    assert found.info["splits"] == {"train": "0:2", "validation": "2:4"}
    kinds = [episode["source"].split(", ")[0::2] for episode in found.ours["episodes"]]
    assert {tuple(kind) for kind in kinds} >= {("phone_on_base", "driven"), ("wine_at_rack", "sampled")}
    assert all(episode["success"] is (True if "driven" in episode["source"] else None) for episode in found.ours["episodes"])
    assert not list(made.parent.glob(".two*")), "the parts are gone"
    found.close()


def test_frames_name_what_the_sentence_names_and_where_it_is(made):
    found = LeRobotDataset(made)
    seen = set()
    for index in range(len(found)):
        sample = found.sample(index)
        assert sample.grounding, sample.instruction
        for item in sample.grounding:
            assert np.isfinite(item.place).all() and -0.1 < item.place[2] < 0.6
            seen.update(sample.instruction[begin:end] for begin, end in item.spans)
            assert set(item.patches) == {"front", "wrist"} and all(index < 64 for index in item.patches["front"])
    assert {"phone", "rack"} <= seen
    found.close()


def test_a_patch_shows_the_thing_whose_place_falls_into_it():
    recorder = Recorder("phone_on_base", SINGLE, CONFIG.convention, ROBOT)
    rig, hits = recorder.rig, 0
    for seed in range(6):
        rig.reset(np.random.default_rng(seed))
        patches = recorder.camera.patches()["front"]["phone"]
        camera, place = rig.data.camera("front"), recorder.camera.place("phone")
        x, y, z = camera.xmat.reshape(3, 3).T @ (place - camera.xpos)
        focal = 0.5 / np.tan(np.radians(float(rig.model.camera("front").fovy[0])) / 2)
        column, row = 0.5 + focal * x / -z, 0.5 - focal * y / -z
        hits += int(row * 8) * 8 + int(column * 8) in patches
    recorder.close()
    assert hits >= 5, "one may be hidden by the arm"


@pytest.mark.parametrize("kind", [DRIVEN, SAMPLED])
def test_an_episode_shows_the_same_whatever_was_recorded_before_it(kind):
    found = []
    for before in ((), (7,)):
        recorder = Recorder("blocks", Settings("fr3", ("front",), states=2), CONFIG.convention, ROBOT)
        for seed in before:
            recorder.record(seed, SAMPLED)
        found.append(recorder.record(5, kind))
        recorder.close()
    alone, behind = found
    for ours, theirs in zip(alone.images["front"], behind.images["front"]):
        np.testing.assert_array_equal(ours, theirs)
    assert np.array_equal(alone.state, behind.state) and np.array_equal(alone.action, behind.action)


def test_sampled_states_keep_what_is_held_in_the_hand_and_are_labelled_by_the_expert():
    recorder = Recorder("umbrella_out_of_stand", Settings("fr3", ("front",), states=25), CONFIG.convention, ROBOT)
    world, seen = recorder.rig.world, {"held": 0, "not": 0}
    look, labels = recorder._look, []

    def watch(made, texts):
        tool, handle = world.tool(), world.point("umbrella_grip")
        if 0.1 < tool.opening < 0.5:
            seen["held"] += 1
            assert np.linalg.norm(tool.position - handle) < 0.03, "what is held stays in the hand"
        else:
            seen["not"] += 1
        labels.append(expert_action(recorder.rig, texts[0])[0])
        look(made, texts)

    recorder._look = watch
    recording = recorder.record(4, SAMPLED)
    recorder.close()
    assert seen["held"] >= 3 and seen["not"] >= 3
    assert np.allclose(np.stack(labels), np.stack(recording.action), atol=1e-6)
    places = np.stack(recording.state)[:, :3]
    assert len(np.unique(np.round(places, 3), axis=0)) > 20, "hands are somewhere else each time"


@pytest.mark.parametrize("name, kind, things", [("sweep_to_dustpan", "fr3", ("dirt",)), ("hold_and_wipe", "piper", ("sponge",)),
                                                ("two_arm_pick_and_place", "piper", ("left_block", "right_block"))])
def test_small_things_are_seen_in_the_front_view(name, kind, things):
    policy, robot = ("tiny.yaml", "sim_fr3.yaml") if kind == "fr3" else ("agilex.yaml", "agilex.yaml")
    config, robot = load_configs(ROOT / "config/policies" / policy, ROOT / "config/robots" / robot, "diffusion")
    recorder, seen = Recorder(name, Settings(kind, ("front",)), config.convention, robot), 0
    for seed in range(8):
        recorder.rig.reset(np.random.default_rng(seed))
        patches = recorder.camera.patches()["front"]
        seen += all(len(patches[thing]) > 0 for thing in things)
    recorder.close()
    assert seen >= 7, "one may be behind an arm"


def test_each_sampled_state_has_its_own_light_and_camera_and_what_the_world_changed_stays():
    recorder = Recorder("water_plants", Settings("fr3", ("front",), states=8), CONFIG.convention, ROBOT)
    model, seen, look = recorder.rig.model, [], recorder._look
    can = model.geom_bodyid == model.body("can").id

    def watch(made, texts):
        table = model.geom("table").id
        seen.append((float(model.light_ambient[0, 0]), model.geom_rgba[table, 0], recorder.rig.data.camera("front").xpos[0]))
        assert np.array_equal(model.geom_rgba[can], colours[0]), "the can keeps the colour of its episode"
        look(made, texts)

    reset, colours = recorder.rig.reset, []
    recorder.rig.reset = lambda rng: (reset(rng), colours.append(model.geom_rgba[can].copy()))
    recorder._look = watch
    recorder.record(4, SAMPLED)
    recorder.close()
    assert all(len(set(column)) == 8 for column in zip(*seen)), seen


@pytest.mark.long
def test_the_same_order_gives_the_same_bytes_in_one_process_or_two(made, tmp_path):
    again = build(ORDER, tmp_path / "two", CONFIG.convention, ROBOT, processes=2)
    assert digests(again) == digests(made)


@pytest.mark.long
def test_what_was_made_is_kept_and_only_the_rest_is_made(made, tmp_path, monkeypatch):
    finished, calls = [], []
    record = building._record

    def stopped(job, parts):
        if len(finished) == 3:
            raise KeyboardInterrupt
        finished.append(job)
        return record(job, parts)

    monkeypatch.setattr(building, "_record", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(ORDER, tmp_path / "two", CONFIG.convention, ROBOT)
    assert not (tmp_path / "two").exists() and len(list((tmp_path / ".two.parts").glob("*.npz"))) == 3
    with pytest.raises(HybridVLAError, match="parts of another order of two"):
        build(Order(ORDER.tasks, 2, 6, 0.5, 0.5, SINGLE), tmp_path / "two", CONFIG.convention, ROBOT)
    for convention, robot in ((replace(CONFIG.convention, gripper_sense="one_is_closed"), ROBOT),
                              (CONFIG.convention, replace(ROBOT, name="another"))):
        with pytest.raises(HybridVLAError, match="or of another convention or robot"):
            build(ORDER, tmp_path / "two", convention, robot)
    monkeypatch.setattr(building, "_record", lambda job, parts: calls.append(job) or record(job, parts))
    assert digests(build(ORDER, tmp_path / "two", CONFIG.convention, ROBOT)) == digests(made)
    assert len(calls) == 1


def test_two_arms_have_fourteen_channels_and_three_views(tmp_path):
    config, robot = load_configs(ROOT / "config/policies/agilex.yaml", ROOT / "config/robots/agilex.yaml", "diffusion")
    settings = Settings("piper", ("front", "right", "left"), states=5)
    folder = build(Order(("lift_ball_and_place",), 1, 3, 1.0, 0.0, settings), tmp_path / "dual", config.convention, robot)
    found = LeRobotDataset(folder)
    sample = found.sample(0)
    assert len(found.description.action_names) == 14 and found.description.grippers == (6, 13)
    assert list(sample.images) == ["front", "right", "left"] and sample.actions.shape == (1, 14)
    found.close()


@pytest.mark.long
def test_blocks_and_tray_are_demonstrated_too():
    assert "blocks" in tasks.chosen(["all"], "fr3") and "tray" in tasks.chosen(["all"], "piper")
    recorder = Recorder("blocks", Settings("fr3", ("front",), states=3, labels=3), CONFIG.convention, ROBOT)
    recording = recorder.record(2, SAMPLED)
    recorder.close()
    assert len(recording.texts) == 9 and len(set(recording.texts[:3])) == 3
    assert recording.again == 3 * [False, True, True]
    assert all(len(items) == 2 for items in recording.grounding)
    assert len(recording.subtasks) == 9 and set(recording.subtasks) <= set(PHASES)


@pytest.mark.parametrize("change, words", [
    ({"seed": 999_999, "count": 3}, "seeds of demonstrations lie in 0 to 1000000"), ({"count": 0}, "--count of at least 1"),
    ({"sampled": 1.5}, "--sampled lies in 0 to 1"), ({"tasks": ()}, "name a task")])
def test_orders_that_cannot_be_carried_out_are_named(change, words):
    values = {"tasks": ("phone_on_base",), "count": 2, "seed": 1, "sampled": 0.5, "validation": 0.1, "settings": SINGLE, **change}
    with pytest.raises(HybridVLAError, match=words):
        Order(**values)


def test_a_grid_that_the_pictures_have_no_room_for_is_refused_with_the_largest():
    with pytest.raises(HybridVLAError, match="--grid 43: this rig's pictures have room for 42 patches"):
        Recorder("phone_on_base", Settings("fr3", ("front",), grid=43, states=1), CONFIG.convention, ROBOT)
    Recorder("phone_on_base", Settings("fr3", ("front",), grid=42, states=1), CONFIG.convention, ROBOT).close()


def test_an_episode_of_which_nothing_can_be_shown_is_named(monkeypatch):
    monkeypatch.setattr("hybridvla_sim.demonstrations.record.states", lambda *given: iter(()))
    recorder = Recorder("phone_on_base", Settings("fr3", ("front",), states=1), CONFIG.convention, ROBOT)
    with pytest.raises(HybridVLAError, match="task phone_on_base, seed 7: none of the sampled states can be shown"):
        recorder.record(7, SAMPLED)
    recorder.close()


def test_unknown_tasks_and_those_of_another_rig_are_named(tmp_path, made):
    with pytest.raises(HybridVLAError, match="there is no task 'fly'"):
        tasks.chosen(["fly"], "fr3")
    with pytest.raises(HybridVLAError, match="task 'tray' is for the piper rig"):
        tasks.chosen(["tray"], "fr3")
    with pytest.raises(HybridVLAError, match="named twice"):
        tasks.chosen(["blocks", "blocks"], "fr3")
    copy = tmp_path / "two"
    shutil.copytree(made, copy)
    with pytest.raises(HybridVLAError, match="exists; choose another folder"):
        build(ORDER, copy, CONFIG.convention, ROBOT)


def test_a_driven_episode_that_fails_says_so(monkeypatch):
    recorder = Recorder("phone_on_base", SINGLE, CONFIG.convention, ROBOT)
    recorder.task.max_keyframes = 2
    recording = recorder.record(3, DRIVEN)
    del recorder.task.max_keyframes
    recorder.close()
    assert recording.success is False and len(recording.texts) >= 2


def test_even_phases_ask_what_holds_a_block_for_that_block(tmp_path):
    from hybridvla_sim.tasks.blocks.dataset import write_dataset

    found = LeRobotDataset(write_dataset(tmp_path / "blocks", 192, 3, labels=4, validation=0.25, even_phases=True))
    assert found.info["splits"] == {"train": "0:3", "validation": "3:4"}
    assert found.ours["made_with"] == asdict(DemonstrationConfig("blocks", 192, 4, 3, 0.25, True)), "a recipe's words for it"
    assert found.moments().tolist() == [frame // 4 for frame in range(192)]
    asked = []
    for frame in range(192):
        sample = found.sample(frame, images={"front": np.zeros((1, 1, 3), np.uint8)})
        if 0.5 < sample.state[6] < 0.6:
            assert sample.subtask in PHASES
            asked.append(np.linalg.norm(sample.grounding[0].place - sample.state[:3]) < 0.03)
    found.close()
    assert len(asked) > 40 and np.mean(asked) > 0.4, "a quarter of the sentences names it"


def test_a_driven_episode_that_fails_is_counted_and_left_out_and_a_resumed_run_is_the_same_run(tmp_path, monkeypatch):
    order = Order(("phone_on_base",), 2, 5, 0.5, 0.0, replace(SINGLE, states=2))
    record = Recorder.record

    def failing(self, seed, kind, turn=0):
        made = record(self, seed, kind, turn)
        made.success = False if kind == DRIVEN else None
        return made

    monkeypatch.setattr(Recorder, "record", failing)
    make, missed = building._record, []

    def stopped(job, parts):
        make(job, parts)
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "_record", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(order, tmp_path / "some", CONFIG.convention, ROBOT)
    monkeypatch.setattr(building, "_record", make)
    with pytest.raises(HybridVLAError, match="parts of another order"):
        build(replace(order, failures=True), tmp_path / "some", CONFIG.convention, ROBOT)
    found = LeRobotDataset(build(order, tmp_path / "some", CONFIG.convention, ROBOT, left_out=missed.append))
    assert [job.kind for job in missed] == [DRIVEN] and len(found) == 2
    assert [episode["source"] for episode in found.ours["episodes"]] == ["phone_on_base, seed 6, sampled"]
    found.close()
    found = LeRobotDataset(build(replace(order, failures=True), tmp_path / "all", CONFIG.convention, ROBOT))
    assert [episode["success"] for episode in found.ours["episodes"]] == [False, None]
    found.close()
    with pytest.raises(HybridVLAError, match="failed in all 1 episodes"):
        build(replace(order, count=1, sampled=0.0), tmp_path / "none", CONFIG.convention, ROBOT)
    assert not (tmp_path / "none").exists()
