"""A stand-in for the Python interpreter, and `scripts/train_anywhere.sh` called with it."""
import os
import subprocess
import sys

import pytest

from hybridvla_core.paths import ROOT

SCRIPT = ROOT / "scripts/train_anywhere.sh"
#: Stand-in for Python: its verbs leave the files that the real ones leave; `cut` says at which call a verb's slice ends it.
PYTHON = """
import json, os, pathlib, subprocess, sys
here, arguments = pathlib.Path(os.environ["FAKE"]), sys.argv[1:]
if arguments[0] != "-m" or "FAKE_PIP" in os.environ and arguments[1] == "pip":
    if arguments[0] == "-c" and "mujoco" in arguments[1]:
        print("FatalError: no display")
        sys.exit(os.environ["MUJOCO_GL"] in os.environ.get("FAKE_BLIND", ""))
    if arguments[0] == "-c":
        print(os.environ.get("FAKE_ORIGIN", "0123456789abcdef") if "origin" in arguments[1] else "blocks close_box")
        sys.exit(0)
    if arguments[0].endswith("packages.py") and "FAKE_LACKS" in os.environ:
        sys.exit("train_anywhere: " + os.environ["FAKE_LACKS"] + " missing")
    sys.exit(subprocess.call([sys.executable, *arguments]))
if arguments[:2] == ["-m", "hybridvla_core.evaluation.pooling"]:
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
    for name in os.environ.get("FAKE_LEAVES", "").split():
        (pathlib.Path(said["-o"]).parent / name).touch()
    print(os.environ.get("FAKE_SAYS", ""))
    sys.exit(int(os.environ.get("FAKE_STATUS", 124)))
if verb in os.environ.get("FAKE_WAITS", ""):
    child = subprocess.Popen(["sleep", "600"])
    (here / "at_work").write_text(f"{os.getpid()} {child.pid}")
    child.wait()
if verb == "demonstrate":
    (here / "made").write_text(" ".join(said[key] for key in ("--count", "--states")))
    pathlib.Path(said["-o"]).mkdir()
    import importlib.util
    (here / "deep").write_text(str(importlib.util.find_spec("lies_deep")))
if verb == "install":
    pathlib.Path(said["--target"]).mkdir()
if verb == "train":
    assert float(said["--seconds"]) < 500 and said.get("--init") == os.environ.get("FAKE_INIT", "checkpoints/tiny")
    assert said["--config"].endswith("/out/recipe.yaml") and pathlib.Path(said["--config"]).is_file(), said["--config"]
    (pathlib.Path(said["--work"]) / f"state/step-00000000{number}-stage-0").mkdir(parents=True)
    (pathlib.Path(said["--work"]) / f"state/step-00000000{number}-stage-0/run.json").write_text(os.urandom(8 << 20).hex())
    out = pathlib.Path(said["--out"])
    out.mkdir(exist_ok=True)
    (out / "model.safetensors").write_bytes(os.urandom(16 << 20))
    (out / "MANIFEST.json").write_text(os.environ.get("FAKE_MANIFEST", "{}"))
    pathlib.Path(said["--json"]).write_text(json.dumps({"finished": number == 2}, indent=2))
if verb == "evaluate":
    pathlib.Path(said["--json"]).write_text(json.dumps({
        "task": said["--task"], "mode": said["--mode"], "successes": 3 if said["--task"] == "blocks" else 1, "episodes": 4}))
"""


@pytest.fixture
def run(tmp_path):
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\n{PYTHON}")
    fake.chmod(0o755)

    def go(*arguments, start=subprocess.run, cwd=None, **environment):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} if start is subprocess.run else {}
        return start([str(SCRIPT), *arguments], **pipes, cwd=cwd, text=True, env={
            **os.environ, "PYTHON": str(fake), "FAKE": str(tmp_path), "TRAIN_DEVICE": "cpu", "MUJOCO_GL": "egl",
            "TRAIN_MODES": "ensemble", **environment})

    return go


@pytest.fixture
def calls(tmp_path):
    """Return a function that lists the verbs called so far."""
    return lambda: (tmp_path / "calls").read_text().split("\n")[:-1] if (tmp_path / "calls").is_file() else []
