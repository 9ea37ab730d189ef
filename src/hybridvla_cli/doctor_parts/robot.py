"""What `hybridvla doctor --robot` looks at besides: the graph, and whether checkpoint, policy and robot fit."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional, Sequence, Union

from hybridvla_cli.doctor_parts.findings import FAILURE, Finding
from hybridvla_cli.doctor_parts.graph import Facts, Stream, judge
from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.cameras import CameraRig
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.topics import joint_topics

LONGEST_S = 90
POLICIES: Dict[str, str] = {"fr3": "fr3", "agilex": "agilex"}


def findings_of(robot_file: Path, policy_file: Optional[Path], cameras: Optional[Path], checkpoints: Sequence[Path]
                ) -> Iterator[Finding]:
    """Raises ConfigurationError for a file that cannot be read."""
    robot = load_file(RobotConfig, robot_file)
    policy_file = policy_file or ROOT / "config" / "policies" / f"{POLICIES.get(robot.name, 'tiny')}.yaml"
    config = load_file(PolicyConfig, policy_file)
    if cameras is not None:
        config = config.with_cameras(load_file(CameraRig, cameras))
    for folder in checkpoints:
        yield from _fit(folder, config, robot)
    facts = look(robot, config)
    yield from judge(facts, robot, config) if isinstance(facts, Facts) else [facts]


def _fit(folder: Path, config: PolicyConfig, robot: RobotConfig) -> Iterator[Finding]:
    from hybridvla_cli.doctor_parts.fit import check_fit, check_statistics

    checks: Dict[str, Callable[[], Finding]] = {"fit": lambda: check_fit(folder, config, robot),
                                                "statistics": lambda: check_statistics(folder, robot)}
    for name, check in checks.items():
        try:
            yield check()
        except HybridVLAError as error:
            yield Finding(name, FAILURE, f"cannot be checked: {error}", "cure the checkpoint first")


def look(robot: RobotConfig, config: PolicyConfig) -> Union[Facts, Finding]:
    """The facts of the graph, or why there are none."""
    images = [camera.image_topic for camera in config.cameras]
    wanted = {"topics": [*joint_topics(robot.arms), *images, "/hybridvla/safety/status"],
              "parameters": [camera.serial_parameter for camera in config.cameras if camera.serial_parameter]}
    runner = [str(ROOT / "scripts" / "with_env.sh")] if (ROOT / "devel" / "setup.bash").is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "wanted.json"
        file.write_text(json.dumps(wanted), encoding="utf-8")
        try:
            path = f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
            command = [*runner, sys.executable, "-m", "hybridvla_cli.doctor_parts.gather", str(file)]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", timeout=LONGEST_S,
                                  check=False, env={**os.environ, "PYTHONPATH": path})
        except subprocess.TimeoutExpired:
            return Finding("graph", FAILURE, f"the graph did not answer within {LONGEST_S} "
                                             "s", "is the master's computer reachable?")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Finding("graph", FAILURE, f"the graph cannot be looked at ({said})", "cure the failures above first")
    read = json.loads(done.stdout.splitlines()[-1])
    streams = {topic: Stream(**{**stream, "names": tuple(stream["names"])}) for topic, stream in read.pop("streams").items()}
    return Facts(**{**read, "streams": streams, **{key: {topic: tuple(nodes) for topic, nodes in read[key].items()}
                                                    for key in ("publishers", "subscribers")}})
