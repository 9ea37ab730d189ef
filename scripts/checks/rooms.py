"""Checks what no linter checks: the length of files, the number of files in a folder, and that test files' names differ.

The rules about imports are in pyproject.toml ([tool.importlinter]).
"""
from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Dict, List

LONGEST = 300
MOST = 15
# Files that exceed the bound, with the length that they may not exceed; lower an entry or remove it, never add one.
KNOWN_LONG: Dict[str, int] = {}
# Folders to which the bound does not apply: pictures of the scenes, and helpers that every test may import by their bare name.
NO_ROOMS = ("src/hybridvla_sim/assets", "test/support")


def listed() -> List[Path]:
    """Returns tracked files and new ones that git does not ignore."""
    listing = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"],
                             check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.split("\n")
    return [Path(name) for name in listing if Path(name).is_file()]


def too_long(paths: List[Path]) -> List[str]:
    """Returns sentences about code files above the bound."""
    found = []
    for path in paths:
        length = len(path.read_text(encoding="utf-8").splitlines())
        allowed = KNOWN_LONG.get(path.as_posix(), LONGEST)
        if length > allowed:
            found.append(f"{path}: {length} lines; split it, {allowed} is the longest allowed")
    return found


def too_full(paths: List[Path]) -> List[str]:
    """Returns sentences about folders of src and test with too many files."""
    counts = Counter(path.parent.as_posix() for path in paths if path.parts[0] in ("src", "test"))
    return [f"{folder}: {count} files; make rooms of it, {MOST} is the most allowed"
            for folder, count in sorted(counts.items()) if count > MOST and not folder.startswith(NO_ROOMS)]


def same_names(paths: List[Path]) -> List[str]:
    """Returns sentences about test files that share a name, which pytest cannot import."""
    found: List[str] = []
    first: Dict[str, Path] = {}
    for path in paths:
        if path.name.startswith("test_") and path.suffix == ".py":
            if path.name in first:
                found.append(f"{path}: pytest needs unique names, and {first[path.name]} has this one")
            first.setdefault(path.name, path)
    return found


def main() -> int:
    """Prints every finding; returns 1 if there is any."""
    paths = listed()
    found = too_long([path for path in paths if path.suffix in (".py", ".sh")]) + too_full(paths) + same_names(paths)
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
