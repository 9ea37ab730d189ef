"""What, besides seed and configuration, decides how an episode runs, looks and is stored: our code and what it builds on."""
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
#: Scenes, experts, meshes; filter, robots, the meaning of actions, what proposes them, and how pictures and rows are stored.
FOLDERS = {"sim": Path(hybridvla_sim.__file__).parent, "core": CORE}
#: Code that takes no part in an episode: it trains, measures, or shows results. A policy's model is part of it where it acts.
LEFT_OUT = ("core/report/", "core/training/", "core/benchmark/", "core/data/rlds/", "core/evaluation/ablation/",
            "core/evaluation/parity/", "core/evaluation/replay/")


def origin() -> Dict[str, str]:
    """Returns what an episode was made with, by name: this project's `version`, `mujoco`, `renderer` and the digest `sources`."""
    return {"version": hybridvla_core.__version__, "mujoco": mujoco.__version__, "renderer": os.environ.get("MUJOCO_GL", ""),
            "sources": sources()}


@functools.lru_cache(maxsize=None)
def sources() -> str:
    """Returns a digest of the files that make and store episodes."""
    digest = hashlib.sha256()
    for name, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*")):
            named = f"{name}/{path.relative_to(folder).as_posix()}"
            if path.is_file() and "__pycache__" not in path.parts and not named.startswith(LEFT_OUT):
                digest.update(f"{named}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:20]
