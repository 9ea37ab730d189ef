"""Where this package's files lie: the clone's root, from which configuration and checkpoints are named."""
from __future__ import annotations

from pathlib import Path

#: The root of the clone: the folder that holds `src`, `config` and `checkpoints`.
ROOT = Path(__file__).resolve().parents[2]
