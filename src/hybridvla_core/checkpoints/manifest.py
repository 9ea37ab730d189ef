"""`MANIFEST.json`: size and sha256 of every file of a checkpoint folder, its provenance, and its own digest."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Optional, Tuple

from hybridvla_core.configuration import read_mapping
from hybridvla_core.errors import CheckpointError, few
from hybridvla_core.files import refuse_pointer, sha256, write_text

#: Format of the folder; this version reads no other.
FORMAT = 1
MANIFEST = "MANIFEST.json"
Entry = Tuple[str, int]


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes sorted JSON, completely or not at all: the manifest has the digest of exactly these bytes."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def write_manifest_of(folder: Path, names: Iterable[str], provenance: Mapping[str, Any],
                      known: Optional[Mapping[str, Entry]] = None) -> str:
    """Hashes `names` (those in `known` were hashed while being written); returns the manifest's own sha256."""
    files: Dict[str, Any] = {}
    for name in names:
        digest, size = (known or {}).get(name) or (sha256(folder / name), (folder / name).stat().st_size)
        files[name] = {"sha256": digest, "bytes": size}
    content = {"format": FORMAT, "files": files, "provenance": dict(provenance)}
    write_json(folder / MANIFEST, {**content, "digest": _digest(content)})
    return sha256(folder / MANIFEST)


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """Returns the manifest, checked for internal consistency; raises CheckpointError or ConfigurationError."""
    path = folder / MANIFEST
    manifest = dict(read_mapping(path))
    digest = manifest.pop("digest", None)
    if set(manifest) != {"format", "files", "provenance"} or not isinstance(manifest["files"], Mapping):
        raise CheckpointError(f"{path}: needs exactly format, files and provenance, found {few(manifest)}; "
                              "copy the folder again")
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {manifest['format']!r}; this version reads {FORMAT}")
    # Manifests of the first release have no digest.
    if digest is not None and digest != _digest(manifest):
        raise CheckpointError(f"{path}: does not match its own digest; the file was altered, copy it again")
    return manifest


def check_files(folder: Path, manifest: Mapping[str, Any], required: Iterable[str]) -> None:
    """Checks that every listed file exists with the listed size and content, and that every required one is listed."""
    files = manifest["files"]
    unlisted = [name for name in required if name not in files]
    if unlisted:
        raise CheckpointError(f"{folder / MANIFEST}: does not list {few(unlisted)}; copy the folder again")
    for name, entry in files.items():
        if Path(name).name != name or name in ("", "..", MANIFEST):
            raise CheckpointError(f"{folder / MANIFEST}: lists {name!r}, which is not a file of this folder; copy it again")
        if not isinstance(entry, Mapping) or set(entry) != {"sha256", "bytes"}:
            raise CheckpointError(f"{folder / MANIFEST}: the entry of {name} needs sha256 and bytes; copy the folder again")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: {few(missing)} missing; copy the whole checkpoint folder again")
    for name, entry in files.items():
        size = (folder / name).stat().st_size
        if size != entry["bytes"]:
            refuse_pointer(folder / name)
            raise CheckpointError(f"{folder / name}: {size} bytes, the manifest says {entry['bytes']}; the file is "
                                  "truncated or altered, copy it again")
        if sha256(folder / name) != entry["sha256"]:
            raise CheckpointError(f"{folder / name}: content does not match the manifest; the file was altered, copy it "
                                  "again")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
