"""Location of this package's files: the root that paths of configuration, checkpoints and launch files start from."""
from __future__ import annotations

from pathlib import Path

#: Folder that exists below the root, both in a clone and in the share folder of an installed package.
_MARKER = Path("config") / "robots"


def root_of(module: Path) -> Path:
    """Returns the folder that holds `config` and `checkpoints`, for a file of this package.

    In a clone, and in a workspace that has the clone below its `src`, this is the folder above the clone's `src`. In an install
    space it is `share/hybridvla` beside the `lib` that holds the module.

    Args:
        module: Path of a file in `hybridvla_core`.
    """
    clone = module.parents[2]
    spaces = [parent / "share" / "hybridvla" for parent in module.parents]
    return next((folder for folder in [clone, *spaces] if (folder / _MARKER).is_dir()), clone)


#: The root of the clone, or the package's share folder in an install space.
ROOT = root_of(Path(__file__).resolve())
