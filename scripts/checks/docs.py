"""Checks that what README.md and docs/*.md cite is there: every `test_...`, and every path below a folder of the tree.

A test's name is looked for as a function of test/, and in the file where one stands before it (`file.py::name`). The
`{a,b}` and `*` of a path are expanded; a word in capitals, `<...>` or `...` in it stands for something, and is not judged.
"""
from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Set

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("test", "src", "config", "launch", "scripts", "docs", "requirements", "docker", "checkpoints", "nodes", "msg", "srv")
PATH = re.compile(r"(?<![\w./-])(?:" + "|".join(FOLDERS) + r")/[\w./*{},-]*[\w*}]")
QUALIFIED = re.compile(r"(?<![\w./-])((?:test/)?[\w/]*test_\w+\.py)::(test_\w+)")
NAME = re.compile(r"(?<![\w/.])test_\w+(?!\w|\.py)")
#: What a reader of the documents brings or makes on the way; not part of the tree.
MADE = re.compile(r"config/policies/mine\w*\.yaml|checkpoints/mine\w*|checkpoints/agilex|checkpoints/\*\.pt|docker/\.env")


def tests() -> Dict[str, Set[str]]:
    """File's path -> names of its test functions."""
    found: Dict[str, Set[str]] = {}
    for path in sorted((ROOT / "test").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        found[path.relative_to(ROOT).as_posix()] = {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    return found


def expanded(text: str) -> List[str]:
    """`a/{b,c}.py` as `a/b.py` and `a/c.py`."""
    match = re.search(r"\{([^{}]*)\}", text)
    if match is None:
        return [text]
    return [path for part in match.group(1).split(",") for path in expanded(text[:match.start()] + part + text[match.end():])]


def missing(path: str) -> bool:
    """No file or folder of that name; a file's name may stand without its ending."""
    return not (any(ROOT.glob(path)) or any(ROOT.glob(path + ".*")))


def problems(document: Path, known: Dict[str, Set[str]]) -> Iterator[str]:
    names = {name for functions in known.values() for name in functions}
    files = {Path(file).stem for file in known}
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{document.relative_to(ROOT)}:{number}"
        for file, name in QUALIFIED.findall(line):
            homes = [functions for path, functions in known.items() if path == file or path.endswith("/" + file)]
            if not any(_begins(name, functions) for functions in homes):
                yield f"{where}: {file} has no test {name}"
        for name in NAME.findall(line):
            if name not in files and not _begins(name, names):
                yield f"{where}: there is no test {name}"
        for found in PATH.findall(line):
            for path in expanded(found):
                if not MADE.fullmatch(path) and "..." not in path and missing(path):
                    yield f"{where}: there is no {path}"


def _begins(name: str, functions: Set[str]) -> bool:
    """Tables shorten long names: the beginning of a test, up to a word's end, will do."""
    return any(function == name or function.startswith(name + "_") for function in functions)


def main() -> int:
    """Print every finding; 1 when there is any."""
    known = tests()
    found = [text for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
             for text in problems(document, known)]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
