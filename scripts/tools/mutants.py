"""make mutants: changes the safety filter in one place at a time (mutmut), and counts which changes its fast tests notice.

What has been tried is kept in out/mutants, so that a run which was ended goes on; a function that has changed since is tried
anew. Mutants that only change the wording of a sentence are left out: no test holds the filter to its spelling. What mutmut
makes is tried by `mutant_trials.py` on the tests of test/core/safety that are not marked `long`.
"""
from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Dict, List

import pytest
from mutant_trials import ROOT, Mutant, Trials
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.utils.format_utils import get_mutant_name, orig_function_and_class_names_from_key

PLACE = ROOT / "out" / "mutants"
TRIED = PLACE / "tried.json"
SAFETY = Path("src/hybridvla_core/safety")
TESTS = "test/core/safety"
PROGRESS_S = 60.0
ORIGINAL, MUTANT = "__mutmut_orig", "__mutmut_"
NOTICED = ("killed", "timeout")


def mutants(only: str) -> List[Mutant]:
    """Returns every change of files whose path contains a word; made once, and kept while the files are unchanged."""
    paths, kept = sorted((ROOT / SAFETY).rglob("*.py")), PLACE / "all.json"
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in (*paths, Path(__file__)))).hexdigest()
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    if known.get("stamp") != stamp:
        known = {"stamp": stamp, "all": [[mutant.name, str(mutant.path), *mutant[2:]] for mutant in made(paths)]}
        kept.write_text(json.dumps(known), encoding="utf-8")
    found = [Mutant(name, Path(path), *rest) for name, path, *rest in known["all"]]
    return [mutant for mutant in found if only in str(mutant.path)]


def made(paths: List[Path]) -> List[Mutant]:
    """Returns every change that mutmut would make in files, without changes of wording."""
    found = []
    for path in paths:
        relative = path.relative_to(ROOT)
        changed = mutate_file_contents(str(relative), path.read_text(encoding="utf-8"))
        lines = changed.code.splitlines()

        def text(node: ast.FunctionDef, lines: List[str] = lines) -> str:
            return "\n".join(lines[node.lineno - 1:node.end_lineno])

        functions = {node.name: node for node in ast.walk(ast.parse(changed.code)) if isinstance(node, ast.FunctionDef)}
        for name in changed.mutant_names:
            before, after = functions[name.rpartition(MUTANT)[0] + ORIGINAL], functions[name]
            if not only_wording(before, after):
                whole = get_mutant_name(relative, name)
                function, owner = orig_function_and_class_names_from_key(whole)
                module = ".".join(relative.with_suffix("").parts[1:]).replace(".__init__", "")
                found.append(Mutant(whole, relative, module, owner or "", function, text(before), text(after)))
    return found


def drawn(name: str, seed: int) -> str:
    """Returns the key by which mutants are drawn. It depends only on seed and name, so changes elsewhere keep the sample."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def only_wording(before: ast.AST, after: ast.AST) -> bool:
    """Tells whether two functions differ only in texts of more than one word."""
    pairs = list(zip(ast.walk(before), ast.walk(after)))
    if any(type(one) is not type(other) for one, other in pairs):
        return False
    texts = [(one, other) for one, other in pairs if isinstance(one, ast.Constant) and one.value != other.value]
    return bool(texts) and all(isinstance(one.value, str) and " " in one.value for one, _ in texts)


def decided() -> Dict[str, str]:
    """Returns the outcomes of mutants that have been tried, by their keys."""
    return json.loads(TRIED.read_text(encoding="utf-8")) if TRIED.is_file() else {}


def run(wanted: List[Mutant], share: int, most_s: float) -> int:
    """Tries mutants one at a time; returns pytest's status. share: of them and those tried before; most_s: of tests on one."""
    found, begun, said = decided(), time.monotonic(), [time.monotonic()]
    count: Counter = Counter()

    def decide(mutant: Mutant, fate: str, by: str) -> None:
        found[mutant.key()] = fate
        count[fate] += 1
        TRIED.write_text(json.dumps(found, indent=0), encoding="utf-8")
        if fate not in NOTICED:
            print(f"\n{fate} ({by}): {mutant.name}\n    {difference(mutant)}", flush=True)
        if time.monotonic() - said[0] > PROGRESS_S:
            said[0] = time.monotonic()
            print(f"mutants: {share - len(wanted) + sum(count.values())} of {share} tried, {dict(count)} of this run in "
                  f"{said[0] - begun:.0f} s", flush=True)

    options = ["-q", "-s", "-p", "no:cacheprovider", "-m", "not long", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"),
               "--basetemp", str(PLACE / "tmp"), str(ROOT / TESTS)]
    return int(pytest.main(options, plugins=[Trials(wanted, PLACE, SAFETY, decide, most_s)]))


def difference(mutant: Mutant) -> str:
    changed = difflib.unified_diff(mutant.before.splitlines(), mutant.after.splitlines(), n=0, lineterm="")
    return "\n    ".join(line[0] + line[1:].strip() for line in changed
                        if line[0] in "+-" and not line.startswith(("+++", "---")) and MUTANT not in line)


def interval(noticed: int, tried: int) -> str:
    """Returns Wilson's interval of a share, at 95 %."""
    z = 1.96
    middle = (noticed + z * z / 2) / (tried + z * z)
    half = z / (tried + z * z) * (noticed * (tried - noticed) / tried + z * z / 4) ** 0.5
    return f"{100 * (middle - half):.1f} to {100 * (middle + half):.1f} %"


def report(chosen: List[Mutant]) -> float:
    """Prints the table and the survivors; returns the share that was noticed."""
    found = decided()
    rows: Dict[str, Counter] = {}
    for mutant in chosen:
        fate = found.get(mutant.key(), "not tried")
        rows.setdefault(str(mutant.path.relative_to(SAFETY)), Counter())[fate] += 1
        if fate not in (*NOTICED, "not tried"):
            print(f"\n{fate}: {mutant.name}\n    {difference(mutant)}")
    print(f"\n{'file':34} {'tried':>6} {'killed':>7} {'timeout':>8} {'survived':>9} {'not reached':>12} {'score':>7}")
    total = sum(rows.values(), Counter())
    for name, count in [*sorted(rows.items()), ("all", total)]:
        tried = sum(count.values()) - count["not tried"]
        if tried:
            print(f"{name:34} {tried:6} {count['killed']:7} {count['timeout']:8} {count['survived']:9} {count['not reached']:12} "
                  f"{100.0 * sum(count[fate] for fate in NOTICED) / tried:6.1f} %")
    if total["not tried"]:
        print(f"{total['not tried']} have not been tried; the same command goes on with them")
    tried, noticed = sum(total.values()) - total["not tried"], sum(total[fate] for fate in NOTICED)
    if tried:
        print(f"{noticed} of {tried} were noticed: {100.0 * noticed / tried:.1f} % (95 %: {interval(noticed, tried)})")
    return noticed / max(1, tried)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=0, help="try this many, drawn at random; 0 tries all of them, which "
                                                              "takes a day")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample")
    parser.add_argument("--only", default="", help="only files of safety/ whose path contains this word")
    parser.add_argument("--again", action="store_true", help="retry those that survived, after tests have changed")
    parser.add_argument("--tried", action="store_true", help="only those that have been tried before, no matter which sample "
                                                             "drew them")
    parser.add_argument("--most-s", type=float, default=0.0, help="seconds of tests to spend on one change, the likeliest and "
                                                                  "cheapest tests first, counted by the time they take without "
                                                                  "the change; 0 runs all that reach it")
    parser.add_argument("--report", action="store_true", help="only print the results so far")
    arguments = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    chosen = mutants(arguments.only)
    print(f"mutants: {len(chosen)} in all, wording of sentences left out", flush=True)
    found = decided()
    if arguments.tried:
        chosen = [mutant for mutant in chosen if mutant.key() in found]
    elif arguments.sample and arguments.sample < len(chosen):
        chosen = sorted(chosen, key=lambda mutant: drawn(mutant.name, arguments.seed))[:arguments.sample]
        print(f"mutants: a sample of {len(chosen)}, seed {arguments.seed}", flush=True)
    wanted = [mutant for mutant in chosen if mutant.key() not in found or arguments.again and found[mutant.key()] not in NOTICED]
    status = run(wanted, len(chosen), arguments.most_s) if wanted and not arguments.report else 0
    score = report(chosen)
    return status or (0 if score >= 0.9 else 1)


if __name__ == "__main__":
    sys.exit(main())
