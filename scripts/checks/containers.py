"""Performs the images' builds without a container: copies what each COPY copies, and runs what each RUN runs, as Debian 12.

What the build scripts would install must already be installed: calling apt-get or pip is an error, and `.venv` borrows this
clone's packages. The devel space is really built. At the end the image's command is checked: the nodes of its launch file, or
its verb's help. Nothing outside a temporary folder is changed.

robot.Dockerfile is for ROS Noetic and cannot be performed here; it must have the same steps as sim.Dockerfile, which can.

usage: containers.py [DOCKERFILE..]     exits with 0 if everything succeeded
"""
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List, Tuple

ROOT = Path(__file__).resolve().parents[2]
PLACE = "/opt/hybridvla"
#: What a RUN may call: our scripts, and the one command that makes the user.
OURS = re.compile(r"(scripts|docker)/\w+\.sh\b[^;|<>`$]*|useradd [\w/ -]+")
Steps = List[Tuple[str, str]]


def steps(dockerfile: Path) -> Steps:
    """Returns (INSTRUCTION, rest) in order, with continued lines joined and comments left out."""
    text = re.sub(r"(?m)^\s*#.*\n", "", dockerfile.read_text(encoding="utf-8"))
    return [(word.upper(), rest.strip()) for word, _, rest in
            (line.partition(" ") for line in text.replace("\\\n", " ").splitlines() if line.strip())]


def run_of(rest: str) -> str:
    """Returns a RUN without its mounts. Raises ValueError for a command that is not one of our scripts."""
    command = re.sub(r"--mount=\S+\s+", "", rest).strip()
    for part in command.split("&&"):
        if not OURS.fullmatch(part.strip()):
            raise ValueError(f"RUN {part.strip()}: let a script do it, which can be tried without a container")
    return command


def shape(dockerfile: Path) -> Steps:
    """Returns the steps without what is specific to one system: its requirements, keys, and the node that is checked."""
    own = ("ARG", "CMD", "HEALTHCHECK")
    kept = [(word, re.sub(r"requirements/\w+", "requirements/SYSTEM", rest).replace("docker/apt_update.sh && ", ""))
            for word, rest in steps(dockerfile) if word not in own and rest != "docker/apt_update.sh docker/"]
    return [(word, re.sub(r"\s+", " ", rest)) for word, rest in kept]


def copy(rest: str, root: Path) -> None:
    """Performs COPY SOURCE.. TARGET into the folder that stands for the image's."""
    *sources, target = rest.split()
    for source in sources:
        place, into = ROOT / source, root / target
        if place.is_dir():
            shutil.copytree(str(place), str(into), ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            if target.endswith("/"):
                into = into / place.name
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(place), str(into))


def borrow_packages(root: Path) -> None:
    """Makes a `.venv` with this clone's packages, and stamps that say that the locks are installed."""
    venv = root / ".venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--system-site-packages", "--without-pip", str(venv)], check=True)
    site = next(venv.glob("lib/python3*/site-packages"))
    (site / "borrowed.pth").write_text(str(next(ROOT.glob(".venv/lib/python3*/site-packages"))) + "\n")
    common = root / "scripts/lib/common.sh"
    for lock in sorted((root / "requirements").glob("*/*.txt")):
        stamp = venv / ".stamps" / lock.relative_to(root / "requirements").with_suffix("")
        stamp.parent.mkdir(parents=True, exist_ok=True)
        with stamp.open("w") as file:
            subprocess.run(["bash", "-c", 'source "$1"; hash_of "$2"', "bash", str(common), str(lock)], stdout=file, check=True)


def go_through(dockerfile: Path, folder: Path) -> None:
    """Performs the build of one image. Raises CalledProcessError or ValueError where a build would fail."""
    root, tools = folder / PLACE.lstrip("/"), folder / "tools"
    tools.mkdir(parents=True)
    for name, status in (("apt-get", 1), ("useradd", 0)):
        (tools / name).write_text(f"#!/bin/sh\necho \"$0 $*\" >&2; exit {status}\n")
        (tools / name).chmod(0o755)
    ours = ("ROS_", "CMAKE_", "DRIVER_", "PYTHON", "VIRTUAL")
    env = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    env.update(PATH=f"{tools}:/usr/bin:/bin", PYTHONDONTWRITEBYTECODE="1", ROS_IP="127.0.0.1")
    words = dict(steps(dockerfile))
    for word, rest in steps(dockerfile):
        if word == "COPY":
            copy(rest, root)
        elif word == "RUN":
            if "--until python" in rest:
                borrow_packages(root)
            subprocess.run(["bash", "-o", "pipefail", "-c", run_of(rest)], cwd=str(root), env=env, check=True)
    entry, command = (json.loads(words[word].replace(PLACE, str(root))) for word in ("ENTRYPOINT", "CMD"))
    look = ["--nodes"] if command[0] == "roslaunch" else ["--help"]
    subprocess.run([*entry, *command, *look], cwd=str(root), env=env, check=True, stdout=subprocess.DEVNULL)
    health = json.loads(words["HEALTHCHECK"].partition("CMD ")[2].replace(PLACE, str(root)))
    asked = subprocess.run([*health[:2], "/nobody"], env={**env, "ROS_MASTER_URI": "http://127.0.0.1:1"}, stdout=subprocess.PIPE)
    if asked.returncode != 1 or b"/nobody does not answer" not in asked.stdout:
        raise ValueError(f"the health check of {dockerfile.name} does not say what is wrong: {asked.stdout.decode()}")


def main(names: List[str]) -> int:
    """Performs the builds; returns 1, with a message, at the first that fails."""
    if shape(ROOT / "docker/robot.Dockerfile") != shape(ROOT / "docker/sim.Dockerfile"):
        print("docker/robot.Dockerfile has other steps than docker/sim.Dockerfile, which is gone through in its place")
        return 1
    for dockerfile in [Path(name) for name in names] or [ROOT / "docker/model.Dockerfile", ROOT / "docker/sim.Dockerfile"]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                go_through(dockerfile, Path(folder))
            except (subprocess.CalledProcessError, ValueError, OSError) as error:
                print(f"{dockerfile.name}: {error}")
                return 1
        print(f"{dockerfile.name}: every step went through")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
