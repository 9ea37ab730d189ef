"""`scripts/train_anywhere.sh`: slices that resume where the last one stopped, and files that can be carried."""
import hashlib
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from hybridvla_core.evaluation.suite import check_seeds
from hybridvla_core.paths import ROOT


@pytest.mark.long
def test_slices_go_on_where_the_last_one_stopped_and_leave_files_that_can_be_carried(run, calls, tmp_path):
    out = tmp_path / "out"
    ended = []
    for _ in range(4):
        found = run("suite", str(out))
        ended.append((found.returncode, found.stdout.strip().split("\n")[-1].split(" after ")[0]))
    assert ended[:3] == [(75, "train_anywhere: data is not done"), (75, "train_anywhere: training is not done"),
                         (75, "train_anywhere: evaluate is not done")]
    assert ended[3][0] == 0 and "| mean of 2 | ensemble | | | 0.500 | |" in (out / "table.md").read_text()
    assert calls() == [
        "demonstrate", "demonstrate", "train", "train", *["evaluate blocks ensemble"] * 2,
        *["evaluate close_box ensemble"] * 3], "nothing that was done is done again"
    digest = hashlib.sha256((out / "checkpoint/MANIFEST.json").read_bytes()).hexdigest()[:12]
    parts = sorted((out / "pack").glob("result.tar.gz.*"))
    assert len(parts) == 2 and all(part.stat().st_size <= 15 << 20 for part in parts)
    sums = dict(reversed(line.split()) for line in (out / "pack/SHA256SUMS").read_text().splitlines())
    assert sums == {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}
    with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as tar:
        weights = tar.extractfile("checkpoint/model.safetensors").read()
        assert {"table.md", "recipe.yaml",
                f"evaluation/{digest}-0123456789ab/blocks-ensemble-2000001-10.json"} <= set(tar.getnames())
    assert weights == (out / "checkpoint/model.safetensors").read_bytes()


@pytest.mark.parametrize("arguments, environment, status, words", [
    ((), {}, 2, "say suite or dual"),
    (("suite",), {"TRAIN_SECONDS": "501"}, 2, "end within 9 minutes, use at most 500"),
    (("suite",), {"TRAIN_SEEDS": "2000001 2000002"}, 2, "no episode counts twice; 2000002 is not"),
    (("suite",), {"TRAIN_SEEDS": "2000021 2000001", "TRAIN_EPISODES": "21"}, 2, "counts twice; 2000021 is not"),
    (("suite",), {"TRAIN_SEEDS": "1000000"}, 2, "above 1000000"),
    *((("suite",), {"TRAIN_SEEDS": f"2000001 {seed}"}, 2, f"TRAIN_SEEDS {seed} with 20 episodes reaches 4000001 to 5000000")
      for seed in (4000001, 3999982, 5000000)),
    (("suite",), {"TRAIN_EPISODES": "0"}, 2, "at least 1"),
    (("suite",), {"TRAIN_MODES": "ensemble diffusing"}, 2, "diffusing is none"),
    (("suite",), {"FAKE_ENDS": "demonstrate"}, 1, "nothing of this slice could be kept"),
    (("suite",), {"FAKE_ENDS": "demonstrate", "FAKE_STATUS": "137"}, 1, "data was ended from outside"),
    (("suite",), {"TRAIN_COUNT": "many"}, 2, "are whole numbers"),
    (("suite",), {"FAKE_ENDS": "demonstrate", "FAKE_STATUS": "1", "FAKE_SAYS": "hybridvla: no\rhybridvla: too dark\nIn: X"},
     1, "data failed: hybridvla: too dark\n"),
    (("suite",), {"FAKE_ENDS": "demonstrate", "FAKE_STATUS": "1", "FAKE_SAYS": "Killed"}, 1, "data failed: Killed\n"),
    (("suite",), {"MUJOCO_GL": "glx", "FAKE_BLIND": "glx"}, 1, "not by glx either (FatalError: no display)"),
    (("suite",), {"MUJOCO_GL": "", "FAKE_BLIND": "egl osmesa"}, 1, "not by osmesa either (FatalError: no display)"),
    (("suite",), {"TRAIN_RECIPE": "/nowhere.yaml"}, 1, "/nowhere.yaml: cannot be read"),
    (("suite",), {"TRAIN_INIT": "-"}, 1, "names no preset, so it needs a checkpoint"),
    (("suite",), {"TRAIN_INIT": "/nowhere"}, 1, "/nowhere"),
    (("suite",), {"TRAIN_DEVICE": "cpu", "FAKE_LACKS": "daqp"}, 1, "daqp missing"),
    (("dual",), {"TRAIN_RECIPE": str(ROOT / "config/training/finetune.yaml")}, 1,
     "has 7 action channels, the data of the agilex rig 14")])
def test_what_cannot_be_begun_is_one_sentence(run, calls, tmp_path, arguments, environment, status, words):
    found = run(*arguments, *([str(tmp_path / "out")] if arguments else []), **environment)
    assert found.returncode == status and words in found.stderr
    assert "FAKE_ENDS" in environment or not calls(), "nothing is made for a run that cannot begin"


def test_two_arms_begin_from_the_checkpoint_of_one(run, calls, tmp_path):
    run("dual", str(tmp_path / "out"))
    assert "embedders: new" in (tmp_path / "out/recipe.yaml").read_text() and calls()[0] == "demonstrate"


def test_seeds_beside_those_of_a_training_are_taken_as_evaluate_takes_them(run, calls, tmp_path):
    for seed in (3_999_981, 5_000_001):
        check_seeds(seed, 20)
    run("suite", str(tmp_path / "out"), TRAIN_SEEDS="3999981 5000001")
    assert calls()[0] == "demonstrate"


@pytest.mark.long
@pytest.mark.parametrize("environment, made", [({}, "800 6"), ({"TRAIN_COUNT": "12", "TRAIN_STATES": "30"}, "12 30")])
def test_data_are_many_scenes_with_few_states_unless_others_are_asked_for(run, tmp_path, environment, made):
    for _ in range(2):
        run("suite", str(tmp_path / "out"), **environment)
    assert (tmp_path / "made").read_text() == made


def test_a_folder_of_other_things_is_left_alone(run, tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/photo.jpg").touch()
    found = run("suite", str(tmp_path))
    assert found.returncode == 2 and "holds something that it did not make" in found.stderr
    assert (tmp_path / "pack/photo.jpg").is_file()


@pytest.mark.long
def test_results_of_another_checkpoint_or_order_are_not_counted(run, tmp_path):
    out = tmp_path / "out"
    for _ in range(4):
        found = run("suite", str(out), TRAIN_EPISODES="25")
    assert found.returncode == 0 and "| blocks | ensemble | 9 | 12 |" in (out / "table.md").read_text()
    assert run("suite", str(out), TRAIN_EPISODES="10").returncode == 0
    assert "| blocks | ensemble | 3 | 4 |" in (out / "table.md").read_text()
    (out / "checkpoint/MANIFEST.json").write_text("another")
    assert run("suite", str(out), TRAIN_EPISODES="10").returncode == 0
    assert len(list((out / "evaluation").iterdir())) == 2


@pytest.mark.long
def test_a_wheel_that_was_added_is_installed(run, tmp_path):
    (tmp_path / "wheels").mkdir()
    for name in ("one", "two"):
        (tmp_path / f"wheels/{name}.whl").touch()
        run("suite", str(tmp_path / "out"), TRAIN_WHEELS=str(tmp_path / "wheels"))
        assert (tmp_path / "out/site/wheels.txt").read_text().split()[::2] == ["one.whl", "two.whl"][:1 + (name == "two")]


def wheel(path, files):
    """Writes a wheel like cmeel's: its modules are below cmeel.prefix, and a .pth file points there."""
    name = path.name.split("-")[0]
    said = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    with zipfile.ZipFile(path, "w") as out:
        for inside, text in {**files, **{f"{name}-1.0.dist-info/{key}": text for key, text in said.items()}}.items():
            out.writestr(inside, text)
        out.writestr(f"{name}-1.0.dist-info/RECORD", "".join(f"{inside},,\n" for inside in out.namelist()))


@pytest.mark.long
def test_what_wheels_of_cmeel_install_is_found(run, tmp_path):
    deep = "cmeel.prefix/lib/python{}.{}/site-packages/".format(*sys.version_info)
    (tmp_path / "wheels").mkdir()
    wheel(tmp_path / "wheels/pin-1.0-py3-none-any.whl", {deep + "lies_deep/__init__.py": "", "pin.pth": ""})
    wheel(tmp_path / "wheels/eigen-1.0-py3-none-any.whl", {deep + "eigen/__init__.py": ""})
    for _ in range(2):
        run("suite", str(tmp_path / "out"), TRAIN_WHEELS=str(tmp_path / "wheels"), FAKE_PIP="real")
    assert f"{tmp_path}/out/site/{deep}lies_deep" in (tmp_path / "deep").read_text()


@pytest.mark.parametrize("absent", ["OpenGL", "eigenpy", "hppfcl", "pinocchio"])
def test_packages_that_others_stand_on_are_named(absent):
    hide = (f"import importlib.util, runpy; real = importlib.util.find_spec; "
            f"importlib.util.find_spec = lambda name: None if name == {absent!r} else real(name); "
            f"runpy.run_path({str(ROOT / 'scripts/anywhere/packages.py')!r}, run_name='__main__')")
    found = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True)
    assert found.returncode == 1 and f"train_anywhere: {absent} missing" in found.stderr


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition):
    for _ in range(1200):
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def at_work(run, tmp_path):
    """Yield a call whose first work waits, and the processes of that work."""
    (tmp_path / "calls").write_text("demonstrate\n")
    call = run("suite", str(tmp_path / "out"), start=subprocess.Popen, FAKE_WAITS="demonstrate")
    assert until(lambda: len((tmp_path / "at_work").read_text().split()) == 2 if (tmp_path / "at_work").is_file() else False)
    pids = [int(pid) for pid in (tmp_path / "at_work").read_text().split()]
    yield call, pids
    for pid in [call.pid, *pids]:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    call.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_call_that_is_ended_ends_its_work(run, tmp_path, at_work, number):
    call, pids = at_work
    call.send_signal(number)
    assert call.wait() == 128 + number
    assert until(lambda: not any(map(alive, pids)))
    (tmp_path / "out/.data.partial-7").mkdir()
    (tmp_path / "out/.data.parts").mkdir()
    (tmp_path / "out/.data.parts/blocks.npz.part-7").touch()
    assert "training is not done" in run("suite", str(tmp_path / "out")).stdout, "the lock is free"
    left = [path.name for path in (tmp_path / "out").glob(".data*/**")]
    assert left == [".data.parts"], "nothing half-done is left"


def test_workers_of_work_that_was_killed_are_ended(tmp_path, at_work):
    call, pids = at_work
    os.kill(pids[0], signal.SIGKILL)
    assert call.wait() == 1
    assert until(lambda: not any(map(alive, pids)))


def test_one_call_works_at_a_time_also_where_its_shell_was_killed(run, tmp_path, at_work):
    call, pids = at_work
    for _ in range(2):
        found = run("suite", str(tmp_path / "out"))
        assert found.returncode == 2 and f"another call works in {tmp_path}/out (process {call.pid}" in found.stderr
        call.kill()
        call.wait()
    assert all(map(alive, pids))


@pytest.mark.long
def test_a_run_keeps_its_recipe_and_another_one_is_refused_before_it_is_copied(run, calls, tmp_path):
    out = tmp_path / "out"
    text = (ROOT / "config/training/suite.yaml").read_text() + "preset: tiny\n"
    (tmp_path / "own.yaml").write_text(text)
    for recipe, words in ((tmp_path / "own.yaml", "data is not done"), ("own.yaml", "training is not done")):
        assert words in run("suite", "out", cwd=tmp_path, TRAIN_RECIPE=str(recipe), TRAIN_INIT=str(ROOT / "checkpoints/tiny"),
                            FAKE_INIT=str(ROOT / "checkpoints/tiny")).stdout
    kept = (out / "recipe.yaml").read_text()
    assert kept == text.replace("preset: tiny\n", ""), "the model is the checkpoint's"
    found = run("suite", str(out), TRAIN_RECIPE=str(ROOT / "config/training/suite_gpu.yaml"))
    assert found.returncode == 1 and "was begun with this recipe" in found.stderr
    assert (out / "recipe.yaml").read_text() == kept and calls().count("train") == 1


def test_paths_are_those_of_the_caller(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/one.whl").touch()
    run("suite", "out", cwd=tmp_path, TRAIN_WHEELS="mine", PYTHON="./python")
    assert (tmp_path / "out/site/wheels.txt").read_text().split()[0] == "one.whl"


@pytest.mark.long
def test_the_last_state_is_packed_where_it_is_asked_for(run, tmp_path):
    for asked in ("", "1"):
        shutil.rmtree(tmp_path / "out/train", ignore_errors=True)
        (tmp_path / "calls").write_text("demonstrate\n")
        assert run("suite", str(tmp_path / "out"), TRAIN_PACK_STATE=asked).returncode == 75
        assert bool(list((tmp_path / "out/pack").glob("state.tar.*"))) == bool(asked)
    parts = sorted((tmp_path / "out/pack").glob("state.tar.*"))
    assert len(parts) == 2 and all(part.stat().st_size <= 15 << 20 for part in parts)
    assert all(part.name in (tmp_path / "out/pack/SHA256SUMS").read_text() for part in parts)
    with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as tar:
        assert {".train_anywhere", "train/state/step-000000001-stage-0/run.json"} <= set(tar.getnames())
