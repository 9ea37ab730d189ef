"""Runs tests on changed functions: pytest collects once, and each change runs in a forked process with one function replaced.

mutmut's own runner is not used. It records which tests reach a function while all tests share one process, where what is cached
between tests hides the function from all but the first. It copies and imports the package anew. It runs every test that enters
the function. Here each test's lines are recorded in a separate process, and kept while its file, the support files and the
package are unchanged. Only tests that reach the changed statement run; those that noticed other changes of the same place run
first. The first failure ends a trial. Time limits count processor time, so that a busy computer alone does not fail a test.
"""
from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import json
import os
import signal
import sys
import textwrap
import time
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

import coverage
import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Folders of what tests import; if the part that these tests import changes, their lines are recorded anew.
OURS = (ROOT / "src", ROOT / "test" / "support")
#: With a change, a test may take this many times its processor time without the change, and this many seconds more.
TIMES, MORE_S = 6.0, 3.0
#: Exit status of a child process: no test failed; one did; the change could not be tried.
PASSED, FAILED, NOT_TRIED = 0, 1, 2


class Mutant(NamedTuple):
    """One change. name: mutmut's name; module, owner (a class or ""), function: what is changed; before, after: its text."""

    name: str
    path: Path
    module: str
    owner: str
    function: str
    before: str
    after: str

    def key(self) -> str:
        return hashlib.sha256(f"{self.name}\n{self.before}\n{self.after}".encode()).hexdigest()[:20]


def exchange(mutant: Mutant, text: str) -> None:
    """Replaces the code of a function wherever it has been imported: the function object stays the same.

    Raises:
        ValueError: The text does not fit the function.
    """
    module = importlib.import_module(mutant.module)
    held = vars(vars(module)[mutant.owner] if mutant.owner else module)[mutant.function]
    function = getattr(held, "__func__", held)
    tree = ast.parse(textwrap.dedent(text))
    tree.body[0].name = mutant.function
    if mutant.owner:                        # a class around it, so that super() and private names mean the same
        around = ast.parse(f"class {mutant.owner}: pass")
        around.body[0].body = tree.body
        tree = around
    flags = annotations.compiler_flag
    made: Dict[str, object] = {}
    exec(compile(ast.fix_missing_locations(tree), function.__code__.co_filename, "exec", flags, True), vars(module), made)
    new = vars(made[mutant.owner])[mutant.function] if mutant.owner else made[mutant.function]
    new = getattr(new, "__func__", new)
    function.__code__, function.__defaults__, function.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def changed_lines(mutant: Mutant) -> Set[int]:
    """Returns lines of the file, one of which a test must run to reach the change: its statement's, or the whole function's."""
    tree = ast.parse((ROOT / mutant.path).read_text(encoding="utf-8"))
    inside = tree.body if not mutant.owner else next(
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == mutant.owner).body
    function = next(node for node in inside if isinstance(node, ast.FunctionDef) and node.name == mutant.function)
    whole = set(range(function.body[0].lineno, function.end_lineno + 1))
    before, after = mutant.before.splitlines(), mutant.after.splitlines()
    differ = {function.lineno + i for i, (one, other) in enumerate(zip(before, after)) if i and one != other}
    if len(before) != len(after) or not differ:
        return whole
    spans = []
    for node in ast.walk(function):
        if isinstance(node, ast.stmt) and node is not function:
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
            span = set(range(node.lineno, last + 1))
            if differ <= span:
                spans.append(span)
    return min(spans, key=len) if spans else whole


def _digest(paths: Iterable[Path]) -> str:
    whole = hashlib.sha256()
    for path in sorted(paths):
        whole.update(path.read_bytes())
    return whole.hexdigest()[:20]


class Trials:
    """A pytest plugin that tries mutants on the tests instead of running the tests.

    Args:
        wanted: Mutants to try; an empty list only records what the tests reach.
        place: Folder of what is kept.
        watched: Folder, relative to the clone, whose lines are recorded.
        decide: Called for each mutant with its outcome ("killed", "timeout", "survived", "not reached") and the test.
        most_s: Most time of the tests tried on one mutant, by their time without it, s; 0: all of them.
    """

    def __init__(self, wanted: List[Mutant], place: Path, watched: Path, decide: Callable[[Mutant, str, str], None],
                 most_s: float = 0.0) -> None:
        self._most_s = most_s or float("inf")
        self._wanted, self._place, self._watched, self._decide = wanted, place, watched, decide
        self._failed = False
        self._lines: Dict[str, Dict[str, Set[int]]] = {}
        self._cost: Dict[str, float] = {}
        self._noticed: Counter = Counter()

    def pytest_runtest_logreport(self, report) -> None:
        self._failed = self._failed or report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session) -> bool:
        self._note(list(session.items))
        for mutant in self._wanted:
            self._try(mutant, {item.nodeid: item for item in session.items})
        return True

    def _note(self, items: List[pytest.Item]) -> None:
        kept = self._place / "reached.json"
        known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        imported = {Path(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
        ours = [path for path in imported if path.suffix == ".py" and any(place in path.parents for place in OURS)]
        common = _digest([*ours, *(ROOT / "config").rglob("*.yaml")])
        begun, new = time.monotonic(), 0
        for item in items:
            stamp = common + _digest([Path(str(item.fspath))])
            if known.get(item.nodeid, {}).get("stamp") != stamp:
                status, said, cpu_s = self._apart(lambda item=item: self._reach(item), 600.0)
                if status != PASSED:
                    raise pytest.UsageError(f"{item.nodeid} fails without any change; mend it first")
                known[item.nodeid] = {"stamp": stamp, "lines": json.loads(said), "cpu_s": cpu_s}
                new += 1
                if new % 50 == 0:
                    kept.write_text(json.dumps(known), encoding="utf-8")
                    print(f"mutants: noted what {new} tests reach, {time.monotonic() - begun:.0f} s", flush=True)
        kept.write_text(json.dumps({item.nodeid: known[item.nodeid] for item in items}), encoding="utf-8")
        for item in items:
            self._lines[item.nodeid] = {path: set(lines) for path, lines in known[item.nodeid]["lines"].items()}
            self._cost[item.nodeid] = known[item.nodeid]["cpu_s"]

    def _reach(self, item: pytest.Item) -> Tuple[int, str]:
        """Runs a test and returns which lines it ran."""
        watch = coverage.Coverage(data_file=None, config_file=False, include=[str(ROOT / self._watched / "*")])
        watch.start()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        watch.stop()
        data = watch.get_data()
        lines = {str(Path(path).relative_to(ROOT)): sorted(data.lines(path) or ()) for path in data.measured_files()}
        return (FAILED if self._failed else PASSED), json.dumps(lines)

    def _try(self, mutant: Mutant, items: Dict[str, pytest.Item]) -> None:
        lines, path = changed_lines(mutant), str(mutant.path)
        reaching = [name for name in items if lines & self._lines[name].get(path, set())]
        if not reaching:
            self._decide(mutant, "not reached", "")
            return
        place = f"{mutant.module}.{mutant.owner}.{mutant.function}"
        reaching.sort(key=lambda name: (-self._noticed[place, name], -self._noticed[path, name] / (0.05 + self._cost[name]),
                                        self._cost[name]))
        spent = list(accumulate(self._cost[name] for name in reaching))
        reaching = [name for name, until in zip(reaching, spent) if until - self._cost[name] < self._most_s]
        status, said, _ = self._apart(lambda: self._meet(mutant, [items[name] for name in reaching]), 0.0)
        by = reaching[int(said or 0)]
        if status == NOT_TRIED:
            raise pytest.UsageError(f"{mutant.name} could not be tried")
        fate = {PASSED: "survived", FAILED: "killed"}.get(status, "timeout")
        if fate != "survived":
            self._noticed[place, by] += 1
            self._noticed[path, by] += 1
        self._decide(mutant, fate, by if fate != "survived" else f"{len(reaching)} tests")

    def _meet(self, mutant: Mutant, reaching: List[pytest.Item]) -> Tuple[int, str]:
        try:
            exchange(mutant, mutant.after)
        except Exception:                   # noqa: BLE001  whatever it is, the change was not made
            return NOT_TRIED, "0"
        for number, item in enumerate(reaching):
            self._say(str(number))
            signal.setitimer(signal.ITIMER_PROF, TIMES * self._cost[item.nodeid] + MORE_S)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            if self._failed:
                return FAILED, str(number)
        return PASSED, "0"

    _pipe: Optional[int] = None

    def _say(self, text: str) -> None:
        os.write(self._pipe, text.encode() + b"\n")

    def _apart(self, work: Callable[[], Tuple[int, str]], limit_s: float) -> Tuple[int, str, float]:
        """Runs `work` in a forked process. Returns its status (negative: a signal), last line and processor time, s."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            status = NOT_TRIED
            with contextlib.suppress(BaseException):
                os.close(reading)
                silent = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(silent, stream)
                self._pipe = writing
                if limit_s:
                    signal.setitimer(signal.ITIMER_PROF, limit_s)
                try:
                    status, said = work()
                    self._say(said)
                except BaseException:       # noqa: BLE001  a change that ends pytest itself has been noticed
                    status = FAILED
            os._exit(status)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            text = pipe.read().decode()
        _, ended, used = os.wait4(child, 0)
        status = -os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else os.WEXITSTATUS(ended)
        lines = text.strip().splitlines()
        return status, lines[-1] if lines else "", used.ru_utime + used.ru_stime
