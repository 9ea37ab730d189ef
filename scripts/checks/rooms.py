"""Checks what no linter knows: who may import whom, how long a file may be, and that no two test files share a name."""
from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

LONGEST = 320
# Files that have outgrown the bound, with the length they may not exceed; shorten an entry or remove it, never add one.
KNOWN_LONG: Dict[str, int] = {}
ROS = {"rospy", "roslib", "rosbag", "rosgraph", "genpy", "std_msgs", "geometry_msgs", "sensor_msgs", "diagnostic_msgs",
       "actionlib", "dynamic_reconfigure", "message_filters", "tf2_msgs", "cv_bridge", "hybridvla", "hybridvla_ros"}
LEARNING = {"torch", "torchvision", "timm", "transformers"}
# Folder -> (top-level modules it may not import, rooms of our own it may not import).
ROOMS: Dict[str, Tuple[set, Tuple[str, ...]]] = {
    "src/hybridvla_core": (ROS, ()),
    "src/hybridvla_core/safety": (ROS | LEARNING, ("hybridvla_core.model", "hybridvla_core.policy", "hybridvla_sim")),
    "src/hybridvla_core/model": (ROS, ("hybridvla_core.policy", "hybridvla_core.training", "hybridvla_core.safety")),
    "src/hybridvla_sim": (ROS | LEARNING, ("hybridvla_core.model",)),
}


def imports(tree: ast.AST) -> Iterator[Tuple[int, str]]:
    """Line and full name of every module imported anywhere in a file, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


def check_imports(path: Path) -> List[str]:
    """Sentences about the imports in `path` that its room does not allow."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for folder, (modules, rooms) in ROOMS.items():
        if not path.as_posix().startswith(folder + "/"):
            continue
        for line, name in imports(tree):
            if name.split(".")[0] in modules or any(name == room or name.startswith(room + ".") for room in rooms):
                found.append(f"{path}:{line}: {folder} may not import {name}")
    return found


def main() -> int:
    """Print every finding; 1 when there is any."""
    listing = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"],
                             check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.split("\n")
    found: List[str] = []
    tests: Dict[str, Path] = {}
    for path in (Path(name) for name in listing if name.endswith((".py", ".sh")) and Path(name).is_file()):
        length = len(path.read_text(encoding="utf-8").splitlines())
        allowed = KNOWN_LONG.get(path.as_posix(), LONGEST)
        if length > allowed:
            found.append(f"{path}: {length} lines; split it, {allowed} is the longest allowed")
        if path.suffix != ".py":
            continue
        found += check_imports(path)
        if path.name.startswith("test_"):
            if path.name in tests:
                found.append(f"{path}: pytest needs unique names, and {tests[path.name]} has this one")
            tests[path.name] = path
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
