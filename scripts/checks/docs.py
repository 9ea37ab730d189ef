"""Checks that what the documents cite exists: every `test_...`, every path below a folder of the tree, and the target of every
link, with its heading. Also checks that no line is too wide.

A test's name is searched among the functions of test/, or in a file if one is given before it (`file.py::name`). The `{a,b}`
and `*` of a path are expanded. A path with a word in capitals, `<...>` or `...` is a placeholder, and is not judged.
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
LINK = re.compile(r"\]\(([^)\s]*)\)")
NAME = re.compile(r"(?<![\w/.])test_\w+(?!\w|\.py)")
#: Files that a reader of the documents supplies or makes on the way; they are not part of the tree.
MADE = re.compile(r"config/policies/mine\w*\.yaml|checkpoints/mine\w*|checkpoints/agilex|checkpoints/\*\.pt|docker/\.env")

#: Most characters in a line.
WIDEST = 140


def tests() -> Dict[str, Set[str]]:
    """Returns a file's path -> names of its test functions."""
    found: Dict[str, Set[str]] = {}
    for path in sorted((ROOT / "test").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        found[path.relative_to(ROOT).as_posix()] = {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    return found


def expanded(text: str) -> List[str]:
    """Expands `a/{b,c}.py` to `a/b.py` and `a/c.py`."""
    match = re.search(r"\{([^{}]*)\}", text)
    if match is None:
        return [text]
    return [path for part in match.group(1).split(",") for path in expanded(text[:match.start()] + part + text[match.end():])]


def missing(path: str) -> bool:
    """Tells whether no file or folder has that name; a file's name may lack its suffix."""
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


def anchors(document: Path) -> Set[str]:
    """Returns a document's anchors: its headings in lower case, without punctuation, with a hyphen for every space."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> Iterator[str]:
    """Yields the broken links of a document; does not check links to other sites."""
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        for link in LINK.findall(line):
            name, _, anchor = link.partition("#")
            target = document.parent / name if name else document
            if re.match(r"\w+:", link):
                continue
            if not target.exists():
                yield f"{document.name}:{number}: the link to {name} leads nowhere"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                yield f"{document.name}:{number}: {target.name} has no heading #{anchor}"


def too_wide(document: Path) -> Iterator[str]:
    """Yields lines that are too long to be read side by side; tables, headings, pictures and commands may be long."""
    text = re.sub(r"^```.*?^```", lambda found: "\n" * found.group().count("\n"), document.read_text(encoding="utf-8"),
                  flags=re.MULTILINE | re.DOTALL)
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > WIDEST and not line.startswith(("|", "    ", "#", "![")):
            yield f"{document.name}:{number}: {len(line)} characters; {WIDEST} is the most allowed"


def _begins(name: str, functions: Set[str]) -> bool:
    """Tells whether a test begins with the name, up to a word's end, because tables shorten long names."""
    return any(function == name or function.startswith(name + "_") for function in functions)


def main() -> int:
    """Prints every finding; returns 1 if there is any."""
    known = tests()
    documents = [*sorted(ROOT.glob("[A-Z]*.md")), *sorted((ROOT / "docs").glob("*.md"))]
    found = [text for document in documents if document.name != "CHANGELOG.md"      # which also mentions what was removed
             for text in (*problems(document, known), *broken_links(document))]
    found += [text for document in documents if document.name != "results.md" for text in too_wide(document)]   # a generated page
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
