"""`hybridvla doctor`: what this installation has, what it lacks, and what to do about it; one line per check."""
from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

from hybridvla_cli import Subparsers
from hybridvla_cli.doctor_parts import computer, probes
from hybridvla_cli.doctor_parts.findings import FAILURE, OK, WARNING, Finding
from hybridvla_cli.doctor_parts.stamps import locked_packages, without_ros
from hybridvla_cli.shared.failures import sentence
from hybridvla_core.checkpoints.manifest import MANIFEST, check_files, read_manifest
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import sha256, write_json
from hybridvla_core.paths import ROOT

#: Compiled packages, by their import names.
_COMPILED = ("numpy", "scipy.spatial", "pinocchio", "daqp", "cv2", "PIL.Image", "yaml", "torch", "tokenizers", "safetensors",
             "mujoco")
WITHOUT_ROS = "set up without ROS: this computer serves a model and runs no node"


def add_parser(subparsers: Subparsers) -> None:
    """Adds the `doctor` parser."""
    parser = subparsers.add_parser(
        "doctor", help="check this installation", description="Check this installation and computer: Python, packages, ROS, "
                                                              "the devel space, GPU, rendering, checkpoints, names and "
                                                              "addresses, clock, disk, load; with --robot also the running "
                                                              "graph. Each finding says what it is, why it matters, and which "
                                                              "command fixes it. Exits 1 if something needed is missing.")
    parser.add_argument("--checkpoint", type=Path, action="append", metavar="FOLDER",
                        help="check this checkpoint folder as well (default: all in checkpoints/)")
    parser.add_argument("--robot", "--robot-config", type=Path, metavar="FILE",
                        help="robot configuration: also look at the running graph, and check whether everything fits this robot")
    parser.add_argument("--policy-config", type=Path, metavar="FILE",
                        help="policy configuration, with --robot (default: fr3.yaml, agilex.yaml or tiny.yaml, depending on "
                             "its driver)")
    parser.add_argument("--cameras", type=Path, metavar="FILE", help="camera configuration of the rig, with --robot")
    parser.add_argument("--move-gripper", action="store_true", help="with --robot, while its driver runs and nothing else "
                                                                    "commands it: move the gripper a little after you have "
                                                                    "agreed, and tell whether open means open; the arms do not "
                                                                    "move")
    parser.add_argument("--yes", action="store_true", help="with --move-gripper: ask no questions, neither before nor after")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings as JSON to this file")


def run(args: argparse.Namespace) -> int:
    """Prints one line per check and what to do about it; returns 1 if any fails. Raises HybridVLAError for unsuitable options."""
    if args.move_gripper and args.robot is None:
        raise HybridVLAError("--move-gripper moves a robot: name it with --robot config/robots/NAME.yaml")
    checks: List[Callable[[], Finding]] = [check_python, check_packages, check_imports, check_ros, check_devel_space,
                                           check_drivers, check_gpu, check_rendering]
    folders = args.checkpoint or sorted(path.parent for path in (ROOT / "checkpoints").glob("*/MANIFEST.json"))
    checks += [functools.partial(check_checkpoint, folder) for folder in folders]
    checks = [*checks[:5], *computer.CHECKS, *checks[5:]]
    findings = [_say(_done(check)) for check in checks]
    if args.robot is not None:
        from hybridvla_cli.doctor_parts.robot import findings_of

        findings += [_say(finding)
                     for finding in findings_of(args.robot, args.policy_config, args.cameras, args.checkpoint or ())]
    if args.move_gripper:
        from hybridvla_cli.doctor_parts.robot import move_gripper

        findings += [_say(finding) for finding in move_gripper(args.robot, args.yes)]
    healthy = all(finding.status != FAILURE for finding in findings)
    write_json(args.json, {"healthy": healthy, "checks": [asdict(finding) for finding in findings]})
    return 0 if healthy else 1


def _done(check: Callable[[], Finding]) -> Finding:
    """Returns a check's finding. An error that prevents the check becomes a finding as well, and the other checks go on."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001  # a broken environment may raise anything
        name = getattr(check, "func", check).__name__.replace("check_", "").replace("_", " ")
        return Finding(name, FAILURE, f"cannot be checked: {sentence(error)}", "fix the failures above first")


def _say(finding: Finding) -> Finding:
    print(f"{finding.status:<8} {finding.name:<11} {finding.found}")
    if finding.advice:
        print(f"{'':<20} -> {finding.advice}")
    return finding


def check_python() -> Finding:
    """Checks that the interpreter has a version with locks, and is the clone's own."""
    version = "%d.%d.%d" % sys.version_info[:3]
    if not (3, 8) <= sys.version_info[:2] <= (3, 12):
        return Finding("python", FAILURE, f"{version} in {sys.prefix}", "use Python 3.8 to 3.12; `make setup` makes .venv")
    if Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        return Finding("python", WARNING, f"{version} in {sys.prefix}, not in this clone's .venv",
                       "run .venv/bin/hybridvla if this was not on purpose")
    return Finding("python", OK, f"{version} in {sys.prefix}")


def check_packages() -> Finding:
    """Compares installed versions with the locks; ignores a local build tag such as +cpu."""
    pins = locked_packages()
    absent, different = [], []
    for name, wanted in pins.items():
        try:
            found = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            absent.append(f"{name} {wanted}")
            continue
        if found != wanted:
            different.append(f"{name} {found} instead of {wanted}")
    if absent:
        return Finding("packages", FAILURE, f"missing: {', '.join(absent)}", "run `make setup`")
    if different:
        return Finding("packages", WARNING, "; ".join(different), "run `make setup` to return to the tested versions")
    return Finding("packages", OK, f"{len(pins)} as locked")


def check_imports() -> Finding:
    """Checks that every installed compiled package can be imported together with the others."""
    status, output = _python(probes.IMPORTS, *_COMPILED)
    lines = [line.split(" ", 2) for line in output.splitlines()]
    bad = [f"{words[1]} ({words[2] if len(words) > 2 else 'no reason given'})" for words in lines if words[0] == "bad"]
    if status != 0:
        tried = [words[1] for words in lines if words[0] == "try"]
        bad.append(f"{tried[-1] if tried else 'python'} (ended the interpreter, status {status})")
    if not bad:
        return Finding("imports", OK, f"{sum(words[0] == 'good' for words in lines)} compiled packages work together")
    place = next((words[2] for words in lines if words[0] == "numpy" and len(words) > 2), "")
    advice = "run `make setup`; `rm -rf .venv` first where that does not help"
    if place and Path(sys.prefix) not in Path(place).parents:
        advice = f"numpy comes from {place}, not from {sys.prefix}: unset PYTHONPATH, or run `make setup`"
    return Finding("imports", FAILURE, "unusable: " + "; ".join(bad), advice)


def check_ros() -> Finding:
    """Checks that ROS's Python modules are visible to this interpreter."""
    if without_ros():
        return Finding("ros", OK, WITHOUT_ROS)
    if importlib.util.find_spec("rospy") is None:
        return Finding("ros", FAILURE, "rospy cannot be imported by this interpreter",
                       "run `make setup`; on Noetic first `source /opt/ros/noetic/setup.bash`")
    distribution = os.environ.get("ROS_DISTRO") or "no ROS_DISTRO set"
    try:
        version = importlib.metadata.version("rospy")
    except importlib.metadata.PackageNotFoundError:
        version = "version unknown"
    return Finding("ros", OK, f"rospy {version} ({distribution})")


def check_devel_space() -> Finding:
    """Checks that the built messages can be imported and were made from the definitions in this clone."""
    if without_ros():
        return Finding("devel space", OK, WITHOUT_ROS)
    advice = "run `make setup`"
    # dist-packages or site-packages: catkin chooses by the system's Python.
    built = sorted((ROOT / "devel" / "lib").glob("python3*/*-packages/hybridvla/msg"))
    if not (ROOT / "devel" / "setup.bash").is_file() or not built:
        return Finding("devel space", FAILURE, f"{ROOT / 'devel'} has not been built", advice)
    status, output = _python(probes.MESSAGES, str(built[0].parents[1]))
    if status != 0:
        return Finding("devel space", FAILURE, f"the built messages cannot be imported ({output})", advice)
    found: Dict[str, Tuple[str, str]] = json.loads(output)
    stale = []
    for name, text in _definitions():
        request = text.split("\n---")[0] if name.startswith("srv/") else text
        if name not in found or not found[name][1].strip().startswith(request.strip()):
            stale.append(name)
    if stale:
        return Finding("devel space", FAILURE, f"built from other definitions: {', '.join(stale)}", advice)
    return Finding("devel space", OK, f"{len(found)} messages and services, current")


def _definitions() -> Iterator[Tuple[str, str]]:
    for kind in ("msg", "srv"):
        for path in sorted((ROOT / kind).glob(f"*.{kind}")):
            yield f"{kind}/{path.stem}", path.read_text(encoding="utf-8")


def check_drivers() -> Finding:
    """Tells which messages of the robots' drivers the nodes use: the drivers' own, or the stand-ins built here."""
    if without_ros():
        return Finding("drivers", OK, WITHOUT_ROS)
    if not (ROOT / "devel" / "setup.bash").is_file():
        return Finding("drivers", WARNING, "without the devel space, their messages cannot be looked for", "run `make setup`")
    status, output = _python(probes.DRIVERS, "franka_msgs", "piper_msgs", runner=str(ROOT / "scripts" / "with_env.sh"))
    if status != 0:
        return Finding("drivers", WARNING, f"their messages cannot be looked for ({output})", "run `make setup`")
    places: Dict[str, str] = json.loads(output)
    missing = [name for name, place in places.items() if not place]
    stand_ins = [name for name, place in places.items() if place.startswith(f"{ROOT / 'devel'}{os.sep}")]
    text = "; ".join(f"{name} missing" if not place else f"{name} stand-in" if name in stand_ins else f"{name} from {place}"
                     for name, place in places.items())
    if missing:
        return Finding("drivers", WARNING, text, "run `make setup`")
    if os.environ.get("DRIVER_WORKSPACE") and len(stand_ins) == len(places):
        return Finding("drivers", WARNING, text, f"neither comes from DRIVER_WORKSPACE, {os.environ['DRIVER_WORKSPACE']}: "
                       "run `make setup` with it set, and look whether it holds them")
    return Finding("drivers", OK, text)


def check_gpu() -> Finding:
    """Checks for an accelerator for the policy. The safety filter never needs one."""
    if importlib.util.find_spec("torch") is None:
        return Finding("gpu", WARNING, "torch is not installed: this computer can run the safety filter, but no policy",
                       "on the policy computer run `make setup`")
    import torch

    if not torch.cuda.is_available():
        return Finding("gpu", WARNING, f"none usable by torch {torch.__version__}; the policy runs on the CPU",
                       "the tiny checkpoint needs none; for 2.7B and 7B install a CUDA build and the NVIDIA driver")
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Finding("gpu", OK, f"{names} (torch {torch.__version__})")


def check_rendering() -> Finding:
    """Checks that MuJoCo can render without a screen, with the backend that MUJOCO_GL names or the first that works."""
    wished = os.environ.get("MUJOCO_GL")
    tried = []
    for backend in [wished] if wished else ["egl", "osmesa"]:
        status, output = _python(probes.RENDERING, MUJOCO_GL=backend)
        if status == 0:
            return Finding("rendering", OK, f"{backend} draws without a screen")
        tried.append(f"{backend}: {output}")
    return Finding("rendering", WARNING, "; ".join(tried),
                   "the simulated cameras need it: install libegl1 or libosmesa6, or set MUJOCO_GL")


def check_checkpoint(folder: Path) -> Finding:
    """Checks that every file of a checkpoint folder has the hash that its manifest states."""
    name, model = "checkpoint", importlib.util.find_spec("torch") is not None
    try:
        digest = _read(folder) if model else _hashed(folder)
    except HybridVLAError as error:
        return Finding(name, FAILURE, str(error), "restore the folder from its source")
    return Finding(name, OK, f"{folder} intact, manifest {digest[:12]}{'' if model else '; not read: torch is not installed'}")


def _read(folder: Path) -> str:
    from hybridvla_core.checkpoints.format import read_checkpoint

    return read_checkpoint(folder).manifest_sha256


def _hashed(folder: Path) -> str:
    """Checks the files alone, which also works on a robot computer without torch."""
    check_files(folder, read_manifest(folder), ())
    return sha256(folder / MANIFEST)


def _python(code: str, *arguments: str, runner: str = "", **environment: str) -> Tuple[int, str]:
    """Runs `code` in a new interpreter, started by `runner`; returns the exit status, and its output or an error's last line."""
    try:
        command = [*([runner] if runner else []), sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                              errors="replace", env={**os.environ, **environment}, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return 124, "no answer within 120 s"
    if done.returncode == 0 or code is probes.IMPORTS:
        return done.returncode, done.stdout
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return done.returncode, lines[-1]
