"""What decides, beside seed and configuration, how an episode goes, looks and is stored: our code, and what is under it."""
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
#: Scenes, experts, meshes; and filter, robots, what actions mean, what proposes them, and how pictures and rows are stored.
FOLDERS = {"sim": Path(hybridvla_sim.__file__).parent, "core": CORE}
#: What makes no episode: it trains, measures, or shows what episodes gave. A policy's model does, where the policy acts.
LEFT_OUT = ("core/report/", "core/training/", "core/benchmark/", "core/data/rlds/", "core/evaluation/ablation/",
            "core/evaluation/parity/", "core/evaluation/replay/")


def origin() -> Dict[str, str]:
    """Returns what an episode comes from, by name: `version` of this project, `mujoco`, `renderer`, and `sources`, a digest."""
    return {"version": hybridvla_core.__version__, "mujoco": mujoco.__version__, "renderer": os.environ.get("MUJOCO_GL", ""),
            "sources": sources()}


@functools.lru_cache(maxsize=None)
def sources() -> str:
    """Returns a digest of the files that episodes are made and stored by."""
    digest = hashlib.sha256()
    for name, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*")):
            named = f"{name}/{path.relative_to(folder).as_posix()}"
            if path.is_file() and "__pycache__" not in path.parts and not named.startswith(LEFT_OUT):
                digest.update(f"{named}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:20]
