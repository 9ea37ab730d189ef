"""Which files decide what happens over ROS, so that results of other nodes are not taken for today's."""
from __future__ import annotations

from pathlib import Path
from typing import Dict, Sequence

from hybridvla_core.files import sha256

#: Nodes and launch files.
GRAPH = ("src/hybridvla_ros/**/*.py", "nodes/*", "launch/*.launch")


def digests(root: Path, patterns: Sequence[str]) -> Dict[str, str]:
    """Returns file -> sha256 for all files below `root` that a pattern names."""
    return {str(file.relative_to(root)): sha256(file) for pattern in patterns for file in root.glob(pattern) if file.is_file()}
