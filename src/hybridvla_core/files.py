"""How verbs write results for machines."""
from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Mapping, Optional, Union


def write_json(path: Optional[Union[str, Path]], result: Mapping[str, Any]) -> None:
    """`write_text` of `result` as JSON; nothing when `path` is None."""
    if path is not None:
        write_text(path, json.dumps(result, indent=2, sort_keys=False) + "\n")


def write_text(path: Union[str, Path], text: str) -> None:
    """Write `text` to `path` by rename, so that no reader meets half a file.

    Raises:
        OSError: when the folder cannot be made or written; the command line explains it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
