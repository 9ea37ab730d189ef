"""make mutants: changes the safety filter in one place at a time (mutmut), and counts which changes its fast tests notice.

Works in out/mutants, where links stand for the folders of this clone. What has been tried is kept there, so that a run which
was ended goes on; a function that has changed since is tried anew. Mutants that only change the wording of a sentence are
left out: no test holds the filter to its spelling. `[tool.mutmut]` in pyproject.toml says what is changed and which tests run.
"""
from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional

from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.utils.format_utils import get_mutant_name

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "out" / "mutants"
SAFETY = Path("src/hybridvla_core/safety")
LINKS = ("src", "test", "config", "pyproject.toml")
PROGRESS_S = 60.0
ORIGINAL, MUTANT = "__mutmut_orig", "__mutmut_"
#: pytest's exit statuses that mean a failed test, and mutmut's own for a mutant that ran out of time.
NOTICED = {1: "killed", 3: "killed", -24: "timeout", 24: "timeout", 36: "timeout", 152: "timeout", 255: "timeout", -9: "timeout"}


class Mutant(NamedTuple):
    """One change. name: as mutmut calls it; before, after: the function's text without and with it."""

    name: str
    path: Path
    before: str
    after: str


def prepare() -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    for name in LINKS:
        link = PLACE / name
        if not link.is_symlink():
            link.symlink_to(ROOT / name)


def mutants(only: str) -> List[Mutant]:
    """Every change that mutmut would make in files whose path holds a word, wording of sentences left out."""
    found = []
    for path in sorted((ROOT / SAFETY).rglob("*.py")):
        relative = path.relative_to(ROOT)
        if only not in str(relative):
            continue
        made = mutate_file_contents(str(relative), path.read_text(encoding="utf-8"))
        lines = made.code.splitlines()

        def text(node: ast.FunctionDef, lines: List[str] = lines) -> str:
            return "\n".join(lines[node.lineno - 1:node.end_lineno])

        functions = {node.name: node for node in ast.walk(ast.parse(made.code)) if isinstance(node, ast.FunctionDef)}
        for name in made.mutant_names:
            before, after = functions[name.rpartition(MUTANT)[0] + ORIGINAL], functions[name]
            if not only_wording(before, after):
                found.append(Mutant(get_mutant_name(relative, name), relative, text(before), text(after)))
    return found


def drawn(name: str, seed: int) -> str:
    """By what mutants are drawn: the place in the sample depends on nothing but the name, so changes elsewhere keep it."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def only_wording(before: ast.AST, after: ast.AST) -> bool:
    """Whether two functions differ in nothing but texts of more than one word."""
    pairs = list(zip(ast.walk(before), ast.walk(after)))
    if any(type(one) is not type(other) for one, other in pairs):
        return False
    texts = [(one, other) for one, other in pairs if isinstance(one, ast.Constant) and one.value != other.value]
    return bool(texts) and all(isinstance(one.value, str) and " " in one.value for one, _ in texts)


def decided() -> Dict[str, int]:
    """Mutants that have been tried, with the exit status of the tests."""
    found: Dict[str, int] = {}
    for path in (PLACE / "mutants" / SAFETY).rglob("*.meta"):
        statuses = json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
        found.update((name, status) for name, status in statuses.items() if status is not None and status != 2)
    return found


def outcome(status: Optional[int]) -> str:
    return "not tried" if status is None else NOTICED.get(status, "survived")


def watch(names: Iterable[str], stop: threading.Event) -> None:
    """Says now and then how far a run has come."""
    wanted, begun = set(names), time.monotonic()
    before = len(wanted & decided().keys())
    while not stop.wait(PROGRESS_S):
        found = decided()
        count = Counter(outcome(found.get(name)) for name in wanted)
        tried = len(wanted) - count["not tried"]
        print(f"mutants: {tried} of {len(wanted)} tried, {count['survived']} survived, "
              f"{tried - before} in {time.monotonic() - begun:.0f} s", flush=True)


def run(names: List[str]) -> int:
    """Tries mutants, one at a time."""
    stop = threading.Event()
    watcher = threading.Thread(target=watch, args=(names, stop), daemon=True)
    watcher.start()
    with open(PLACE / "log.txt", "w", encoding="utf-8") as log:
        done = subprocess.run([str(Path(sys.executable).parent / "mutmut"), "run", "--max-children", "1", *names],
                              cwd=str(PLACE), stdout=log, stderr=subprocess.STDOUT, check=False)
    stop.set()
    watcher.join()
    if done.returncode:
        print((PLACE / "log.txt").read_text(encoding="utf-8")[-3000:])
    return done.returncode


def difference(mutant: Mutant) -> str:
    changed = difflib.unified_diff(mutant.before.splitlines(), mutant.after.splitlines(), n=0, lineterm="")
    return "\n    ".join(line[0] + line[1:].strip() for line in changed
                        if line[0] in "+-" and not line.startswith(("+++", "---")) and MUTANT not in line)


def report(chosen: List[Mutant]) -> float:
    """Prints the table and the survivors, and returns the share that was noticed."""
    found = decided()
    rows: Dict[str, Counter] = {}
    for mutant in chosen:
        rows.setdefault(str(mutant.path.relative_to(SAFETY)), Counter())[outcome(found.get(mutant.name))] += 1
    survivors = [mutant for mutant in chosen if outcome(found.get(mutant.name)) == "survived"]
    for mutant in survivors:
        print(f"\nsurvived: {mutant.name}\n    {difference(mutant)}")
    print(f"\n{'file':34} {'tried':>6} {'killed':>7} {'timeout':>8} {'survived':>9} {'score':>7}")
    total = sum(rows.values(), Counter())
    for name, count in [*sorted(rows.items()), ("all", total)]:
        tried = sum(count.values()) - count["not tried"]
        if tried:
            print(f"{name:34} {tried:6} {count['killed']:7} {count['timeout']:8} {count['survived']:9} "
                  f"{100.0 * (tried - count['survived']) / tried:6.1f} %")
    if total["not tried"]:
        print(f"{total['not tried']} have not been tried; the same command goes on with them")
    tried = sum(total.values()) - total["not tried"]
    return (tried - total["survived"]) / max(1, tried)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=0, help="try so many, drawn at random; 0: all of them, which takes a day")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--only", default="", help="files of safety/ whose path has this word")
    parser.add_argument("--again", action="store_true", help="try those anew that survived, after tests have changed")
    parser.add_argument("--tried", action="store_true", help="only those that have been tried before, whatever drew them")
    parser.add_argument("--report", action="store_true", help="only print what has been found")
    arguments = parser.parse_args()
    prepare()
    chosen = mutants(arguments.only)
    print(f"mutants: {len(chosen)} in all, wording of sentences left out", flush=True)
    if arguments.tried:
        found = decided()
        chosen = [mutant for mutant in chosen if mutant.name in found]
    elif arguments.sample and arguments.sample < len(chosen):
        chosen = sorted(chosen, key=lambda mutant: drawn(mutant.name, arguments.seed))[:arguments.sample]
        print(f"mutants: a sample of {len(chosen)}, seed {arguments.seed}", flush=True)
    found = decided()
    names = [mutant.name for mutant in chosen if mutant.name not in found
             or arguments.again and outcome(found[mutant.name]) == "survived"]
    status = run(names) if names and not arguments.report else 0
    score = report(chosen)
    return status or (0 if score >= 0.9 else 1)


if __name__ == "__main__":
    sys.exit(main())
