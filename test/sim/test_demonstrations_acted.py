"""`demonstrate --policy`: a policy drives, and the expert labels the places that the policy reaches."""
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from test_demonstrations import CONFIG, ROBOT, SINGLE, digests

from hybridvla_cli import demonstrate
from hybridvla_cli.__main__ import main
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_sim.demonstrations import build as building
from hybridvla_sim.demonstrations.acting import Actor
from hybridvla_sim.demonstrations.build import Order, build
from hybridvla_sim.demonstrations.record import ACTED, Recorder, Settings
from hybridvla_sim.experts import ExpertPolicy

TINY = str(ROOT / "checkpoints" / "tiny")
OFF = 0.03
COMMAND = ["demonstrate", "--tasks", "blocks", "--count", "2", "--views", "front", "--labels", "2", "--seed", "11", "--policy",
           TINY]


class ErringPolicy(ExpertPolicy):
    """The expert, with each target 3 cm further to the left."""

    def __init__(self):
        super().__init__(CONFIG.convention, ("wrist", "front"))
        self.asked = []

    def predict(self, observation, mode=None, seed=0):
        self.asked.append((list(observation.images), observation.instruction, mode, seed))
        found = super().predict(observation, mode, seed)
        return dataclasses.replace(found, action=found.action + [0, OFF, 0, 0, 0, 0, 0])


@pytest.fixture(scope="module")
def acted():
    policy = ErringPolicy()
    recorder = Recorder("phone_on_base", SINGLE, CONFIG.convention, ROBOT, Actor(policy))
    policy.attach(recorder.rig)
    made = [recorder.record(seed, ACTED, seed) for seed in (3, 4)]
    recorder.close()
    return policy, made


def test_labels_are_the_experts_where_the_policys_own_errors_led(acted):
    _, (made, _) = acted
    state, action = np.stack(made.state), np.stack(made.action)
    assert made.success is None and len(state) >= 8
    # The first label leads to a place; the arm comes to rest beside it, and the label there leads back to it.
    wanted = state[0, :3] + action[0, :3]
    beside = np.linalg.norm(state[:, :3] - wanted - [0, OFF, 0], axis=1)
    assert beside.min() < 0.01
    assert -1.4 * OFF < action[beside.argmin(), 1] < -0.6 * OFF


def test_the_policy_sees_its_own_views_in_its_order_and_both_paths_act_in_turn(acted):
    policy, _ = acted
    by_seed = {seed: mode for _, _, mode, seed in policy.asked}
    assert by_seed == {3: "autoregressive", 4: "diffusion"}
    for seed in (3, 4):
        told = [(views, text) for views, text, _, of in policy.asked if of == seed]
        assert all(views == ["wrist", "front"] for views, _ in told)
        assert len({text for _, text in told}) == 1, "one sentence is followed to the end"


@pytest.mark.parametrize("sampled, count", [(0.0, 6), (0.5, 8), (0.75, 16), (0.9, 40)])
def test_the_paths_take_turns_whatever_is_sampled_between(sampled, count):
    jobs = Order(("phone_on_base", "blocks"), count, 5, sampled, 0.25, SINGLE, "1" * 64).jobs()
    for task in ("phone_on_base", "blocks"):
        turns = [job.turn for job in jobs if job.task == task and job.kind == ACTED]
        assert len(turns) >= 4 and turns == list(range(5, 5 + len(turns)))


@pytest.mark.long
def test_both_paths_act_where_every_other_episode_is_sampled(tmp_path, monkeypatch):
    paths, load = {}, demonstrate.load_policy

    def watched(*wanted):
        policy = load(*wanted)
        predict = policy.predict
        policy.predict = lambda seen, mode=None, seed=0: paths.setdefault(seed, mode) and predict(seen, mode, seed)
        return policy

    monkeypatch.setattr(demonstrate, "load_policy", watched)
    four = [*COMMAND, "--count", "4", "--sampled", "0.5", "--states", "2", "--processes", "1"]
    assert main([*four, "-o", str(tmp_path / "four")]) == 0
    assert list(paths) == [11, 13] and set(paths.values()) == {"autoregressive", "diffusion"}


def test_what_the_policy_sees_does_not_depend_on_what_is_kept():
    policy = ErringPolicy()
    recorder = Recorder("blocks", Settings("fr3", ("front",), labels=3), CONFIG.convention, ROBOT, Actor(policy, ["diffusion"]))
    policy.attach(recorder.rig)
    made = recorder.record(3, ACTED)
    recorder.close()
    assert set(made.images) == {"front"} and {mode for _, _, mode, _ in policy.asked} == {"diffusion"}
    assert made.again[:6] == 2 * [False, True, True], "other goals of the same moment are labelled, too"


@pytest.fixture(scope="module")
def commanded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commanded") / "one"
    assert main([*COMMAND, "--processes", "1", "-o", str(folder)]) == 0
    return folder


def test_the_data_set_says_who_acted(commanded):
    found = LeRobotDataset(commanded)
    digest = read_checkpoint(Path(TINY)).manifest_sha256
    sources = [episode["source"] for episode in found.ours["episodes"]]
    assert sources == [f"blocks, seed {seed}, acted by {digest[:12]}" for seed in (11, 12)]
    assert [episode["success"] for episode in found.ours["episodes"]] == [None, None]
    assert found.description.grounded and len(found) >= 16
    found.close()


@pytest.mark.long
def test_two_processes_make_the_same_and_end_quietly(commanded, tmp_path, capfd):
    assert main([*COMMAND, "--processes", "2", "-o", str(tmp_path / "one")]) == 0
    assert digests(tmp_path / "one") == digests(commanded)
    assert "Traceback" not in capfd.readouterr().err


def test_a_policy_of_another_rig_is_refused_before_anything_is_made(tmp_path, capsys):
    assert main(["demonstrate", "--rig", "agilex", "--tasks", "tray", "--policy", TINY, "-o", str(tmp_path / "two")]) == 1
    said = capsys.readouterr().err
    assert "the checkpoint" in said and "front" in said
    assert list(tmp_path.iterdir()) == []


def test_parts_that_another_policy_acted_are_not_taken_up(tmp_path, monkeypatch):
    def fails(job, parts):
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "_record", fails)
    order = Order(("phone_on_base",), 2, 5, 0.0, 0.0, SINGLE, "1" * 64)
    assert [job.kind for job in order.jobs()] == [ACTED, ACTED]
    with pytest.raises(KeyboardInterrupt):
        build(order, tmp_path / "set", CONFIG.convention, ROBOT)
    with pytest.raises(HybridVLAError, match="parts of another order of set"):
        build(dataclasses.replace(order, policy="2" * 64), tmp_path / "set", CONFIG.convention, ROBOT)
