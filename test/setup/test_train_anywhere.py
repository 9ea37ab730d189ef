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
if cut:
    sys.exit(124)
if verb == "demonstrate":
    pathlib.Path(said["-o"]).mkdir()
if verb == "train":
    assert float(said["--seconds"]) < 500 and said["--init"] == "checkpoints/tiny" and said["--config"].endswith("suite.yaml")
    out = pathlib.Path(said["--out"])
    out.mkdir(exist_ok=True)
    (out / "model.safetensors").write_bytes(os.urandom(16 << 20))
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
        "demonstrate", "demonstrate", "train", "train", "evaluate blocks ensemble", "evaluate close_box ensemble",
        "evaluate close_box ensemble"], "nothing that was done is done again"
    parts = sorted((out / "pack").glob("result.tar.gz.*"))
    assert len(parts) == 2 and all(part.stat().st_size <= 15 << 20 for part in parts)
    sums = dict(reversed(line.split()) for line in (out / "pack/SHA256SUMS").read_text().splitlines())
    assert sums == {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}
    with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as tar:
        weights = tar.extractfile("checkpoint/model.safetensors").read()
        assert {"table.md", "recipe.yaml", "evaluation/blocks-ensemble-2000001.json"} <= set(tar.getnames())
    assert weights == (out / "checkpoint/model.safetensors").read_bytes()


@pytest.mark.parametrize("arguments, environment, status, words", [
    ((), {}, 2, "say suite or dual"),
    (("suite",), {"TRAIN_SECONDS": "600"}, 2, "a slice ends within 9 minutes, use at most 540"),
    (("suite",), {"TRAIN_COUNT": "many"}, 2, "are whole numbers"),
    (("suite",), {"PYTHON": "/bin/false"}, 1, "data failed")])
def test_what_cannot_be_begun_is_one_sentence(run, tmp_path, arguments, environment, status, words):
    found = run(*arguments, *([str(tmp_path / "out")] if arguments else []), **environment)
    assert found.returncode == status and words in found.stderr
