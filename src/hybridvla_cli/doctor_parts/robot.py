"""Additional checks of `hybridvla doctor --robot`: graph, checkpoint and policy against the robot, the gripper's sense."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Union

from hybridvla_cli.doctor_parts.findings import FAILURE, WARNING, Finding
from hybridvla_cli.doctor_parts.graph import Facts, Stream, judge
from hybridvla_cli.doctor_parts.gripper import Ask, Move, ask_first, ask_seen, sense_findings
from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.cameras import CameraRig
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.processor import slowness
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.graph_names import STATUS
from hybridvla_core.robots.topics import joint_topics

LONGEST_S = 90


def findings_of(robot_file: Path, policy_file: Optional[Path], cameras: Optional[Path], checkpoints: Sequence[Path]
                ) -> Iterator[Finding]:
    """Yields the findings about a robot. Raises ConfigurationError for a file that cannot be read."""
    robot = load_file(RobotConfig, robot_file)
    policy_file = policy_file or _usual_policy(robot)
    config = load_file(PolicyConfig, policy_file)
    slow = slowness(config.dtype, config.device) if config.backend == "local" else ""
    if slow:
        yield Finding("processor", WARNING, f"dtype {config.dtype}: {slow}", "if this is the policy computer, write dtype: "
                      f"float32 into {policy_file}; it takes twice the memory")
    if cameras is not None:
        config = config.with_cameras(load_file(CameraRig, cameras))
    for folder in checkpoints:
        yield from _fit(folder, config, robot)
    facts = look(robot, config)
    yield from judge(facts, robot, config) if isinstance(facts, Facts) else [facts]


def _usual_policy(robot: RobotConfig) -> Path:
    """Returns the policy configuration of this robot's launch file. It goes by the driver: a lab names its robot as it likes."""
    name = "fr3" if robot.franka is not None else "agilex" if robot.agilex is not None else "tiny"
    return ROOT / "config" / "policies" / f"{name}.yaml"


def _fit(folder: Path, config: PolicyConfig, robot: RobotConfig) -> Iterator[Finding]:
    try:
        from hybridvla_cli.doctor_parts.fit import check_fit, check_statistics
    except ImportError as error:        # torch, which a robot computer may lack
        yield Finding("fit", WARNING, f"cannot be checked here: {error}", "run this again on the computer that runs the policy")
        return
    checks: Dict[str, Callable[[], Finding]] = {"fit": lambda: check_fit(folder, config, robot),
                                                "statistics": lambda: check_statistics(folder, robot)}
    for name, check in checks.items():
        try:
            yield check()
        except HybridVLAError as error:
            yield Finding(name, FAILURE, f"cannot be checked: {error}", "fix the checkpoint first")


def look(robot: RobotConfig, config: PolicyConfig) -> Union[Facts, Finding]:
    """Returns the facts of the graph, or why there are none."""
    images = [camera.image_topic for camera in config.cameras]
    agilex = [arm.topics["robot_state"] for arm in robot.arms] if robot.agilex is not None else []
    wanted = {"arms": agilex, "compliance": robot.franka.compliance_node if robot.franka is not None else "",
              "topics": [*joint_topics(robot.arms), *images, STATUS],
              "parameters": [camera.serial_parameter for camera in config.cameras if camera.serial_parameter]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "wanted.json"
        file.write_text(json.dumps(wanted), encoding="utf-8")
        read = _beside_the_nodes("gather", str(file))
    if isinstance(read, Finding):
        return read
    streams = {topic: Stream.read(stream) for topic, stream in read.pop("streams").items()}
    return Facts(**{**read, "streams": streams, **{key: {topic: tuple(nodes) for topic, nodes in read[key].items()}
                                                    for key in ("publishers", "subscribers")}})


def move_gripper(robot_file: Path, yes: bool, ask: Ask = input) -> Iterator[Finding]:
    """Moves the grippers a little once a person has agreed, and says whether open is open.

    Args:
        robot_file: The robot's configuration.
        yes: Whether to ask nobody, before or after.
        ask: Asks a question at the terminal.

    Yields:
        One finding per arm, or why nothing was moved.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    robot = load_file(RobotConfig, robot_file)
    found = _beside_the_nodes("move_gripper", str(robot_file.resolve()), "look")
    if not isinstance(found, Finding) and not found["refused"][0]:
        try:
            agreed = yes or ask_first(_moves(found), robot, ask)
        except EOFError:
            agreed = False
        if not agreed:
            yield Finding("gripper", WARNING, "not moved: nobody typed yes", "ask again at a terminal, or give --yes")
            return
        found = _beside_the_nodes("move_gripper", str(robot_file.resolve()), "move")
    if isinstance(found, Finding):
        yield found
    elif found["refused"][0]:
        yield Finding("gripper", FAILURE, f"not moved: {found['refused'][0]}", found["refused"][1])
    else:
        moves = _moves(found)
        yield from sense_findings(moves, robot, robot_file, {} if yes else ask_seen(moves, ask))


def _moves(found: Dict[str, Any]) -> List[Move]:
    return [Move(**move) for move in found["moves"]]


def _beside_the_nodes(module: str, *arguments: str) -> Union[Dict[str, Any], Finding]:
    """Runs a module of this folder in the nodes' environment; returns the JSON that it prints, or why it prints none."""
    runner = [str(ROOT / "scripts" / "with_env.sh")] if (ROOT / "devel" / "setup.bash").is_file() else []
    path = f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = [*runner, sys.executable, "-m", f"hybridvla_cli.doctor_parts.{module}", *arguments]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", timeout=LONGEST_S,
                              check=False, env={**os.environ, "PYTHONPATH": path})
    except subprocess.TimeoutExpired:
        return Finding("graph", FAILURE, f"the graph did not answer within {LONGEST_S} s", "is the master's computer reachable?")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Finding("graph", FAILURE, f"the graph cannot be looked at ({said})", "fix the failures above first")
    found: Dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
