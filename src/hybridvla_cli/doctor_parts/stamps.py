"""What the set-up was told to install here, according to its stamps, and the packages that belong to it."""
from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Dict, Optional

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT


def _locks() -> Path:
    """Returns the folder of the locks for this interpreter."""
    return ROOT / "requirements" / ("noetic" if sys.version_info[:2] == (3, 8) else "debian12")


def _stamps() -> Path:
    """Returns the folder with a file for each lock that the set-up has installed into this interpreter's environment."""
    return Path(sys.prefix) / ".stamps" / _locks().name


def without_ros() -> bool:
    """Tells whether the set-up was told to leave ROS out, as on a computer that only serves a model (Debian 12 only).

    Returns:
        Whether ROS was left out; False also if the set-up did not make this environment.
    """
    stamps = _stamps()
    return (stamps / "base").is_file() and not (stamps / "sim").is_file() and not (ROOT / "devel").exists()


def locked_packages(stamps: Optional[Path] = None) -> Dict[str, str]:
    """Returns the packages that belong here, according to the locks for this interpreter.

    Args:
        stamps: Folder with a file for each lock that the set-up has installed; default: that of this interpreter's environment.

    Returns:
        Name -> version, without the model's or the simulator's packages if the set-up was told to leave them out.

    Raises:
        HybridVLAError: A lock is missing.
    """
    folder, stamps = _locks(), stamps or _stamps()
    base, model = ("core", ("policy", "torch", "vision")) if folder.name == "noetic" else ("base", ("torch", "vision"))
    names = [base]
    for group in (("sim",), model):
        if not (stamps / base).is_file() or any((stamps / name).is_file() for name in group):
            names += group
    pins: Dict[str, str] = {}
    for name in names:
        path = folder / f"{name}.txt"
        if not path.is_file():
            raise HybridVLAError(f"{path} is missing; restore it from the repository")
        pins.update(re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
    return pins
