"""What decides, beside its seed, how an episode goes and looks: our code of scenes, experts and filter, and what is under it."""
from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import Dict

import mujoco

import hybridvla_core
import hybridvla_sim

CORE = Path(hybridvla_core.__file__).parent
#: Scenes, experts, meshes; what the filter lets through; what actions mean.
FOLDERS = {"sim": Path(hybridvla_sim.__file__).parent, "safety": CORE / "safety", "transforms": CORE / "transforms"}


def origin() -> Dict[str, str]:
    """Returns what an episode comes from, by name: `version` of this project, `mujoco`, `renderer`, and `sources`, a digest."""
    return {"version": hybridvla_core.__version__, "mujoco": mujoco.__version__, "renderer": os.environ.get("MUJOCO_GL", ""),
            "sources": sources()}


@functools.lru_cache(maxsize=None)
def sources() -> str:
    """Returns a digest of the files that episodes are made by."""
    digest = hashlib.sha256()
    for name, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{name}/{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:20]
