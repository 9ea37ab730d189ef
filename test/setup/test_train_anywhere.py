"""`scripts/train_anywhere.sh`: slices that go on where the last one stopped, and files that can be carried."""
import hashlib
import io
import os
import subprocess
import sys
import tarfile

import pytest

from hybridvla_core.paths import ROOT

SCRIPT = ROOT / "scripts/train_anywhere.sh"
#: Stands in for Python: the verbs leave what the real ones leave; `cut` says which call of one is ended by its slice.
PYTHON = """
import json, os, pathlib, subprocess, sys
here, arguments = pathlib.Path(os.environ["FAKE"]), sys.argv[1:]
if arguments[0] != "-m":
    if arguments[0] == "-c":
        print("blocks close_box")
        sys.exit(0)
    sys.exit(subprocess.call([sys.executable, *arguments]))
verb = arguments[2]
said = dict(zip(arguments[3::1], arguments[4::1]))
with open(here / "calls", "a") as calls:
    calls.write(" ".join([verb, said.get("--task", ""), said.get("--mode", "")]).strip() + "\\n")
number = (here / "calls").read_text().split("\\n").count(" ".join([verb, said.get("--task", ""), said.get("--mode", "")]).strip())
cut = verb == "demonstrate" and number == 1 or said.get("--task") == "close_box" and number == 1
if cut or verb in os.environ.get("FAKE_ENDS", "").split():
    if cut and verb == "demonstrate" and "FAKE_ENDS" not in os.environ:
        (pathlib.Path(said["-o"]).parent / "part-1").touch()
    sys.exit(int(os.environ.get("FAKE_STATUS", 124)))
if verb == "demonstrate":
    (here / "made").write_text(" ".join(said[key] for key in ("--count", "--states")))
    pathlib.Path(said["-o"]).mkdir()
if verb == "install":
    pathlib.Path(said["--target"]).mkdir()
if verb == "train":
    assert float(said["--seconds"]) < 500 and said["--init"] == "checkpoints/tiny"
    assert said["--config"].endswith("suite.yaml" if number == 1 else "/out/recipe.yaml"), said["--config"]
    assert (pathlib.Path(said["--config"]).parent / "recipe.yaml").is_file() or number == 1
    out = pathlib.Path(said["--out"])
    out.mkdir(exist_ok=True)
    (out / "model.safetensors").write_bytes(os.urandom(16 << 20))
    (out / "MANIFEST.json").write_text(os.environ.get("FAKE_MANIFEST", "{}"))
    pathlib.Path(said["--json"]).write_text(json.dumps({"finished": number == 2}, indent=2))
if verb == "evaluate":
    pathlib.Path(said["--json"]).write_text(json.dumps({"successes": 3 if said["--task"] == "blocks" else 1, "episodes": 4}))
"""


@pytest.fixture
def run(tmp_path):
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\n{PYTHON}")
    fake.chmod(0o755)

    def go(*arguments, **environment):
        return subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, env={
            **os.environ, "PYTHON": str(fake), "FAKE": str(tmp_path), "TRAIN_DEVICE": "cpu", "MUJOCO_GL": "egl",
            "TRAIN_MODES": "ensemble", **environment})

    return go


@pytest.mark.long
def test_slices_go_on_where_the_last_one_stopped_and_leave_files_that_can_be_carried(run, tmp_path):
    out = tmp_path / "out"
    ended = []
    for _ in range(4):
        found = run("suite", str(out))
        ended.append((found.returncode, (found.stdout + found.stderr).strip().split("\n")[-1].split(" after ")[0]))
    assert ended[:3] == [(75, "train_anywhere: data is not done"), (75, "train_anywhere: training is not done"),
                         (75, "train_anywhere: evaluate is not done")]
    assert ended[3][0] == 0 and "| mean of 2 | ensemble | | | 0.500 | |" in (out / "table.md").read_text()
    assert (tmp_path / "calls").read_text().split("\n")[:-1] == [
        "demonstrate", "demonstrate", "train", "train", *["evaluate blocks ensemble"] * 2,
        *["evaluate close_box ensemble"] * 3], "nothing that was done is done again"
    digest = hashlib.sha256((out / "checkpoint/MANIFEST.json").read_bytes()).hexdigest()[:12]
    parts = sorted((out / "pack").glob("result.tar.gz.*"))
    assert len(parts) == 2 and all(part.stat().st_size <= 15 << 20 for part in parts)
    sums = dict(reversed(line.split()) for line in (out / "pack/SHA256SUMS").read_text().splitlines())
    assert sums == {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}
    with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as tar:
        weights = tar.extractfile("checkpoint/model.safetensors").read()
        assert {"table.md", "recipe.yaml", f"evaluation/{digest}/blocks-ensemble-2000001-10.json"} <= set(tar.getnames())
    assert weights == (out / "checkpoint/model.safetensors").read_bytes()


@pytest.mark.parametrize("arguments, environment, status, words", [
    ((), {}, 2, "say suite or dual"),
    (("suite",), {"TRAIN_SECONDS": "501"}, 2, "end within 9 minutes, use at most 500"),
    (("suite",), {"TRAIN_SEEDS": "2000001 2000002"}, 2, "no episode counts twice; 2000002 is not"),
    (("suite",), {"TRAIN_SEEDS": "2000021 2000001", "TRAIN_EPISODES": "21"}, 2, "counts twice; 2000021 is not"),
    (("suite",), {"TRAIN_SEEDS": "1000000"}, 2, "above 1000000"),
    (("suite",), {"TRAIN_EPISODES": "0"}, 2, "at least 1"),
    (("suite",), {"TRAIN_MODES": "ensemble diffusing"}, 2, "diffusing is none"),
    (("suite",), {"FAKE_ENDS": "demonstrate"}, 1, "nothing of this slice could be kept"),
    (("suite",), {"FAKE_ENDS": "demonstrate", "FAKE_STATUS": "137"}, 1, "data was ended from outside"),
    (("suite",), {"TRAIN_COUNT": "many"}, 2, "are whole numbers"),
    (("suite",), {"PYTHON": "/bin/false"}, 1, "data failed")])
def test_what_cannot_be_begun_is_one_sentence(run, tmp_path, arguments, environment, status, words):
    found = run(*arguments, *([str(tmp_path / "out")] if arguments else []), **environment)
    assert found.returncode == status and words in found.stderr


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


def test_a_wheel_that_was_added_is_installed(run, tmp_path):
    (tmp_path / "wheels").mkdir()
    for name in ("one", "two"):
        (tmp_path / f"wheels/{name}.whl").touch()
        run("suite", str(tmp_path / "out"), TRAIN_WHEELS=str(tmp_path / "wheels"))
        assert (tmp_path / "out/site/wheels.txt").read_text().split()[::2] == ["one.whl", "two.whl"][:1 + (name == "two")]
