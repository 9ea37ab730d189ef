"""`hybridvla ablate`: what is run, what is refused by name, and what a killed sweep leaves."""
import dataclasses
import json
from pathlib import Path

import pytest
import toy_data
import yaml

from hybridvla_cli.__main__ import main
from hybridvla_cli.ablate_parts import measured, order, sweep
from hybridvla_cli.ablate_parts.order import Order, Source, policies_named
from hybridvla_cli.shared import environment
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.ablation import speed
from hybridvla_core.evaluation.ablation.cells import Outcome
from hybridvla_core.evaluation.ablation.tables import TABLES
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.remote import client
from hybridvla_core.training.ablation import trainings

TINY = Source.open(str(ROOT / "checkpoints" / "tiny"))
GOALS = {"blocks": {"red on green": ("put the red block on the green pad",)}}


def outcome(cell):
    """Return a cell's outcome, computed from its own numbers without an episode."""
    won = tuple((cell.seed + number) % 3 > 0 or cell.variant.mode == "ensemble" for number in range(cell.episodes))
    return Outcome(success=won, violations=(0,) * len(won), predictions=(2,) * len(won), confidence=(0.97, None) * len(won),
                   errors_mm=(3.0, 5.0) * len(won), fused=0.25, correlation=0.8)


@pytest.fixture
def ran(monkeypatch):
    """Record the cells that a sweep requests; `limit` of them are done before it dies."""
    seen = []

    def run_cells(cells, bench, processes, done):
        for cell in cells:
            if len(seen) == run_cells.limit:
                raise OSError("killed")
            seen.append(cell)
            done(cell, outcome(cell))
        return {}
    run_cells.limit = None
    monkeypatch.setattr(sweep, "run_cells", run_cells)
    return seen, run_cells


def test_episodes_of_other_code_or_another_renderer_are_not_mixed_in(tmp_path, ran, monkeypatch):
    seen, _ = ran
    command = ["ablate", "modes", "--quick", "--out", str(tmp_path)]
    assert main(command) == 0
    count = len(seen)
    assert main(command) == 0 and len(seen) == count
    monkeypatch.setenv("MUJOCO_GL", "another")
    assert main(command) == 0 and len(seen) == 2 * count


def test_a_sweep_that_was_killed_goes_on_and_gives_the_table_of_an_unbroken_one(tmp_path, ran):
    seen, fake = ran
    command = ["ablate", "modes", "--quick", "--out"]
    fake.limit = 4
    assert main([*command, str(tmp_path / "broken")]) == 1
    assert main([*command, str(tmp_path / "broken"), "--report"]) == 0
    half = json.loads((tmp_path / "broken" / "results.json").read_text())
    assert sum(row["episodes"] for row in half["tables"][0]["rows"]) == 20
    assert half["not_run"] == ["8 runs of 5 episodes in the tables below; the same command runs them"]
    assert main(["ablate", "all", "--quick", "--report", "--out", str(tmp_path / "broken")]) == 0
    text = (tmp_path / "broken" / "results.md").read_text()
    assert "- Denoising steps (Figure 4): `hybridvla ablate steps --quick`" in text and "## Denoising" not in text
    assert "(Tables 1 and 3): `hybridvla ablate trainings --quick`" in text and "| robot state helps | **not run** |" in text
    assert "| 4 denoising steps are as good as 25 and as 30 | **not run** |" in text
    fake.limit = None
    assert main([*command, str(tmp_path / "broken")]) == 0
    assert len(seen) == len({cell.key for cell in seen}) == 12       # no cell is run twice
    seen.clear()
    assert main([*command, str(tmp_path / "whole")]) == 0
    for name in ("results.json", "results.md", "index.html", "images/results-modes.svg"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_all_tables_share_their_episodes_and_the_documents_say_the_same(tmp_path, ran):
    seen, _ = ran
    for name in ("threshold", "steps", "conditioning", "calibration"):
        assert main(["ablate", name, "--quick", "-o", str(tmp_path / "out"), "--docs", str(tmp_path / "docs")]) == 0
    variants = {cell.variant for cell in seen}
    assert len(seen) == 4 * len(variants) == 4 * 19         # 0.96 is the checkpoint's own; `calibration` asks for it again
    text = (tmp_path / "docs" / "results.md").read_text()
    assert "| 0.970 to 0.970 |" in text and "Holds here" in text
    assert text == (tmp_path / "out" / "results.md").read_text()


@pytest.mark.parametrize("tasks", [["blocks,close_box"], ["blocks", "close_box"], ["blocks,", "close_box"]])
def test_a_task_that_the_checkpoint_was_not_trained_for_is_named_and_the_rest_goes_on(tmp_path, ran, capsys, tasks):
    seen, _ = ran
    assert main(["ablate", "filter", "--quick", "--tasks", *tasks, "-o", str(tmp_path), "--processes", "1"]) == 1
    assert {cell.task for cell in seen} == {"blocks"} and "not trained for task close_box" in capsys.readouterr().err
    result = json.loads((tmp_path / "results.json").read_text())
    assert "--tasks blocks close_box --seed" in result["meta"]["command"]
    assert all(set(row["per_task"]) == {"blocks"} and row["episodes"] == 20 for row in result["tables"][0]["rows"])
    assert len(result["not_run"]) == 1 and result["not_run"][0].startswith("close_box in mode ensemble, seed 2000001")


def test_a_checkpoint_without_one_path_is_run_in_its_other_mode():
    config = dataclasses.replace(TINY.config, trained=("diffusion",))
    asked = Order({"given": dataclasses.replace(TINY, config=config)}, GOALS, 2_000_001, 2, 1)
    cells = {row.label: asked.cells(row)[0] for row in TABLES["modes"].rows}
    assert set(asked.refused) == {cells["ensemble"].key, cells["autoregressive"].key}
    assert all("without the loss of autoregressive" in why for why in asked.refused.values())


def test_a_further_policy_is_a_row_of_its_own(tmp_path, ran, monkeypatch):
    seen, _ = ran
    monkeypatch.setattr(order, "CONNECT_S", 0.2)
    assert main(["ablate", "modes", "--quick", "--policy", f"mine={TINY.place}", "-o", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["tables"][0]["rows"]
    assert [row["label"] for row in rows] == ["ensemble", "diffusion", "autoregressive", "mine"]
    assert rows[3]["successes"] == rows[0]["successes"] and len(seen) == 12      # the same mode of the same checkpoint
    for wrong in (["mine"], ["given=x"], ["a=x", "a=y"]):
        with pytest.raises(HybridVLAError, match="write NAME=CHECKPOINT"):
            policies_named(wrong)
    assert main(["ablate", "modes", "--policy", "away=ws://127.0.0.1:9", "-o", str(tmp_path)]) == 1


def test_all_tasks_of_a_rig_and_the_configuration_with_the_checkpoints_cameras(tmp_path, monkeypatch):
    benches = []

    def run_cells(cells, bench, processes, done):
        benches.append((bench, {cell.task for cell in cells}))
        return {}
    monkeypatch.setattr(sweep, "run_cells", run_cells)
    monkeypatch.setattr(order, "check_trained", lambda *_: None)
    for rig, cameras, count in (("fr3", ("front", "wrist"), 12), ("fr3", ("front",), 12),
                                ("agilex", ("front", "right", "left"), 4)):
        views = dataclasses.replace(TINY.config.model, views=len(cameras))
        model = dataclasses.replace(TINY, config=dataclasses.replace(TINY.config, cameras=cameras, model=views))
        monkeypatch.setattr(Source, "open", classmethod(lambda cls, place, model=model: model))
        # The arms of one rig take joints, which the filter computes: without it they would not move, which is no result.
        status = main(["ablate", "filter", "--quick", "--rig", rig, "--tasks", "all", "-o", str(tmp_path / rig)])
        assert status == (rig == "agilex")
        bench, names = benches[-1]
        assert tuple(camera.view for camera in bench.config.cameras) == cameras and len(names) == count
        assert len(bench.robot.arms) == (1 if rig == "fr3" else 2)
    found = json.loads((tmp_path / "agilex" / "results.json").read_text())
    assert len(found["not_run"]) == 1 and "without the filter nobody computes the joints" in found["not_run"][0]
    command = found["meta"]["command"]
    assert "--tasks all" in command and "--rig agilex" in command and "config" not in command


@pytest.mark.parametrize("option, file, key", [("--robot-config", "robots/sim_fr3.yaml", "speed_scale"),
                                               ("--policy-config", "policies/tiny.yaml", "seed")])
def test_a_changed_configuration_gets_episodes_of_its_own(tmp_path, ran, option, file, key):
    seen, _ = ran
    command, changed = ["ablate", "modes", "--quick", "-o", str(tmp_path / "out")], tmp_path / "changed.yaml"
    usual = yaml.safe_load((ROOT / "config" / file).read_text())
    for value in (usual.get(key, 1.0), 1 if key == "seed" else 0.25):
        changed.write_text(yaml.safe_dump({**usual, key: value}))
        assert main([*command, option, str(changed)]) == 0
    assert len(seen) == len({cell.key for cell in seen}) == 24
    assert main(command) == 0 and len(seen) == 24         # a file's contents count, not its place
    assert main([*command, option, str(changed)]) == 0 and len(seen) == 24
    assert f"{option} {changed}" in json.loads((tmp_path / "out" / "results.json").read_text())["meta"]["command"]


def test_policies_elsewhere_share_nothing_and_one_without_a_digest_is_run_again(tmp_path, ran, monkeypatch, capsys):
    seen, fake = ran

    class Elsewhere:
        manifest_sha256 = ""

        def __init__(self, source):
            pass

        def close(self):
            pass
    monkeypatch.setattr(client, "RemotePolicy", Elsewhere)
    command = ["ablate", "modes", "--quick", "-o", str(tmp_path), "--policy", "a=ws://127.0.0.1:1", "--policy", "b=ws://127.0.0.1:2"]
    assert main(command) == 0 and len(seen) == 12 + 8
    assert main([*command, "--report"]) == 0 and len(seen) == 20 and "run again" not in capsys.readouterr().out
    fake.limit = 21
    assert main(command) == 1                               # killed: results not yet rerun are gone, too
    assert "8 earlier results are run again, since these policies have no digest" in capsys.readouterr().out
    assert main([*command, "--report"]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["tables"][0]["rows"]
    assert [row["episodes"] for row in rows] == [20, 20, 20, 5, 0]
    fake.limit = None
    monkeypatch.setattr(Elsewhere, "manifest_sha256", "d" * 64)
    seen.clear()
    assert main(command) == 0 and main(command) == 0 and len(seen) == 8      # one with a digest resumes
    assert main(["ablate", "steps", "--quick", "-o", str(tmp_path), "--checkpoint", "ws://127.0.0.1:1"]) == 1
    assert len(seen) == 8 and "ws://127.0.0.1:1 can only be asked for a mode" in capsys.readouterr().err


def test_a_full_run_of_the_speed_is_not_the_quick_one(tmp_path, monkeypatch):
    asked = []

    def run(subject, rounds, passes):
        asked.append(rounds)
        modes = {name: {"median_ms": 2.0, "fastest_ms": 1.0} for name in speed.NAMES}
        return {"modes": modes, "rounds": rounds, "parameters_m": 1, "dtype": "float32", "threads": 1, "device": "cpu",
                "passes": {"mean": 2.0}, "ratios": dict.fromkeys(
                    ("kv_cache_speedup", "kv_cache_speedup_of_fastest", "full_over_diffusion", "plain_over_full"), 1.0)}
    monkeypatch.setattr("hybridvla_core.benchmark.run.run", run)
    for options, rounds in ((["--quick"], 15), ([], 50), (["--quick"], 15), (["--report"], 50)):
        assert main(["ablate", "speed", "-o", str(tmp_path), *options]) == 0
        sheet, = json.loads((tmp_path / "results.json").read_text())["sheets"]
        assert f"{rounds} rounds" in sheet["about"]
    assert asked == [15, 50]


def test_the_rigs_are_run_again_when_a_file_changes_that_decides_what_they_do(tmp_path, monkeypatch):
    ran = []

    def run(command, check):
        ran.append(command)
        folder = Path(command[-1])
        folder.mkdir(parents=True, exist_ok=True)
        part = {"episodes": 4, "successes": len(ran), "limit_violations": 0, "policy": "expert"}
        (folder / "summary.json").write_text(json.dumps({"fr3": part}))
    robot = tmp_path / "root" / "config" / "robots" / "fr3.yaml"
    robot.parent.mkdir(parents=True)
    monkeypatch.setattr(measured, "ROOT", tmp_path / "root")
    monkeypatch.setattr(measured.subprocess, "run", run)
    for text, won in (("fast", 1), ("fast", 1), ("slow", 2), ("fast", 1)):
        robot.write_text(text)
        assert main(["ablate", "rigs", "-o", str(tmp_path / "out")]) == 0
        assert json.loads((tmp_path / "out" / "results.json").read_text())["sheets"][0]["rows"][0][3] == won
    assert len(ran) == 2


@pytest.mark.parametrize("table", ["rigs", "all"])
def test_a_sheet_that_could_not_be_made_is_said_and_is_no_success(tmp_path, ran, monkeypatch, capsys, table):
    def absent(args, out, given):
        raise measured.NotRun("nothing was begun")
    for name in ("_speed", "_trainings"):
        monkeypatch.setattr(measured, name, absent)
    monkeypatch.setattr(measured.subprocess, "run", lambda command, check: None)        # ends without a summary
    command = ["ablate", table, "--quick", "-o", str(tmp_path)]
    assert main([*command, "--report"]) == 0 and capsys.readouterr().err == ""
    assert main(command) == 1
    said = "Both rigs over ROS (Table 5): both rigs ended without a summary; `make rigs` shows why\n"
    assert capsys.readouterr().err.endswith(f"hybridvla: {said}")
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)     # as on a computer set up --without-ros
    assert main(command) == 1
    assert "ablate rigs needs ROS and this project's messages" in capsys.readouterr().err
    assert json.loads((tmp_path / "results.json").read_text())["unmade"][-1]["name"] == "rigs"


def test_an_unknown_table_and_a_seed_of_the_training_are_refused(tmp_path, capsys):
    assert main(["ablate", "modus", "-o", str(tmp_path)]) == 1
    assert "use one of modes, threshold, conditioning, steps, filter, generalization, calibration," in capsys.readouterr().err
    assert main(["ablate", "modes", "--seed", "5", "-o", str(tmp_path)]) == 1
    assert main(["ablate", "speed", "--report", "-o", str(tmp_path)]) == 0
    assert "(Table 2, appendix B.2): `hybridvla ablate speed`\n" in (tmp_path / "results.md").read_text()


RECIPE = """recipe: hybrid
preset: tiniest
demonstrations: {task: blocks, frames: 60, labels: 1, seed: 5}
batch: 4
objective: {repeats: 2}
stages: [{name: act, train: full, steps: 4, learning_rate: 1.0e-3}]
workers: 0
validation_frames: 6
"""


@pytest.mark.long
def test_trainings_are_kept_one_by_one_and_one_that_fails_leaves_its_place_empty(tmp_path, monkeypatch, caplog):
    toy_data.add_preset(monkeypatch)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setattr(measured, "RECIPE", tmp_path / "recipe.yaml")
    monkeypatch.setattr(trainings, "TRAININGS", (trainings.TRAININGS[0], trainings.TRAININGS[3]))
    command = ["ablate", "trainings", "--quick", "-o", str(tmp_path / "out")]
    trained, whole = [], measured._trained

    def second_fails(config, work, folder):
        trained.append(config.sequence)
        if config.sequence == 4:
            raise HybridVLAError("the disk is full")
        return whole(config, work, folder)
    monkeypatch.setattr(measured, "_trained", second_fails)
    assert main(command) == 0 and "the disk is full" in caplog.text
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["sheets"][0]["rows"]
    assert [row[1] for row in rows] == [1, 0] and float(rows[0][2]) > 0 and rows[1][2:4] == ["", ""]
    monkeypatch.setattr(measured, "_trained", lambda config, work, folder: trained.append(config.sequence) or whole(
        config, work, folder))
    assert main(command) == 0 and trained == [1, 4, 4]
    assert all(row[1] == 1 for row in json.loads((tmp_path / "out" / "results.json").read_text())["sheets"][0]["rows"])
