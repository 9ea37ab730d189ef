"""make field: runs every script of a folder of field cases on this clone and says which ended as its README expects.

The scripts were written for the module names of an earlier release: they run in a copy in which names that have moved
(hybridvla_core/moved.py) are replaced. `--only WORD` chooses cases, `--show` prints what each said.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Tuple

from cases import CASES, Case

from hybridvla_core.moved import MOVED
from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.leftovers import end_all, marked
from hybridvla_ros.runtime.patience import patience

DEFAULT = ROOT.parent / "shared" / "field-cases"
PASSED, FAILED, SKIPPED = "as expected", "NOT AS EXPECTED", "skipped"
#: Variable in the environment of everything that a case starts.
MARK = "HYBRIDVLA_FIELD_RUN"
TEXTS = (".py", ".sh", ".yaml")
#: Calls of the scripts that have moved, been renamed, or take more arguments now: helpers of tests, the reader of picture
#: files, the format of a message beside its bytes.
ENDED = {
    "/test/core\"": "/test/support\"",
    "ReplaySettings": "ReplayConfig",
    "policy.prepare_jpeg(data, \"front\")": "policy.prepare_jpeg(data, \"front\", form)",
    "from hybridvla_core.cli.predict import _image; a=_image('$D/$f'); print(":
        "import sys\nfrom hybridvla_core.errors import ObservationError\n"
        "from hybridvla_core.transforms.pictures import read_file\n"
        "try: a = read_file('$D/$f', '$f')\nexcept ObservationError as error: sys.exit(str(error))\nprint("}


def adapted(source: Path, folder: Path) -> Path:
    """Make a copy of the cases in which moved names are replaced."""
    copy = folder / "cases"
    shutil.copytree(str(source), str(copy), ignore=shutil.ignore_patterns("__pycache__"))
    names = sorted({**MOVED, **ENDED}.items(), key=lambda pair: -len(pair[0]))
    known = dict(names)
    pattern = re.compile("|".join(rf"{re.escape(old)}(?![\w]|\.\w+\.py)" for old, _ in names))
    for path in copy.rglob("*"):
        if path.suffix in TEXTS and path.is_file():
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
            path.write_text(pattern.sub(lambda match: known[match.group()], text), encoding="utf-8", errors="surrogateescape")
    return copy


def environment(copy: Path, folder: Path) -> Dict[str, str]:
    """Return the environment that the cases' own env.sh expect."""
    here = {"ROOT": str(ROOT), "P": str(ROOT), "WORK": str(folder / "work"), "OMP_NUM_THREADS": "1", "ROS_IP": "127.0.0.1",
            "CASES": str(copy / "robot"), MARK: str(folder),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    (folder / "work" / "out").mkdir(parents=True, exist_ok=True)
    return {**os.environ, **here}


def run(case: Case, copy: Path, folder: Path) -> Tuple[str, str, str]:
    """Run a case; return the outcome, the reason, and the output."""
    place = copy / case.name if not case.name.startswith("safety/") else copy / "safety"
    if not place.is_dir():
        return SKIPPED, "the folder has no such case", ""
    command = ["bash", "-c", case.command]
    if case.private:
        if os.geteuid() != 0:
            return SKIPPED, "needs root: a network and mounts of its own", ""
        command = ["unshare", "-n", "-m", *command]
    with subprocess.Popen(command, cwd=str(place), env=environment(copy, folder), stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
                          stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", start_new_session=True) as process:
        limit = patience(case.seconds)
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            return FAILED, f"not done within {limit:.0f} s", said
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)      # what the script has started and not stopped
            end_all(marked(MARK, str(folder)))              # and what roslaunch started in sessions of its own
    found = reasons(case, said)
    return (FAILED, "; ".join(found), said) if found else (PASSED, "", said)


def reasons(case: Case, said: str) -> List[str]:
    """Return why an output is not the expected one; empty when it is."""
    found = [f"does not say {pattern!r}" for pattern in case.wanted if not re.search(pattern, said)]
    found += [f"says {pattern!r}" for pattern in (*case.refused, r"Traceback \(most recent call last\)") if re.search(pattern,
        said)]
    for pattern, least, most in case.numbers:
        values = [float(value) for value in re.findall(pattern, said)]
        if not values:
            found.append(f"gives no number for {pattern!r}")
        found += [f"{value:g} for {pattern!r}" for value in values if not least <= value <= most]
    return found


def main() -> int:
    """Runs the cases and prints a table; returns 1 when one did not end as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name has this word")
    parser.add_argument("--show", action="store_true", help="print what each case said")
    arguments = parser.parse_args()
    source = Path(os.environ.get("HYBRIDVLA_FIELD_CASES", str(DEFAULT)))
    if not (source / "README.md").is_file():
        print(f"field: {source} holds no field cases (HYBRIDVLA_FIELD_CASES can name their folder); nothing was run")
        return 0
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)      # under nohup, too, the cases receive hang-ups as from a terminal
    rows = []
    with tempfile.TemporaryDirectory() as name:
        copy = adapted(source, Path(name))
        for case in (case for case in CASES if arguments.only in case.name):
            started = time.monotonic()
            outcome, why, said = run(case, copy, Path(name))
            rows.append((case.name, outcome, why))
            print(f"{case.name:34} {outcome:16} {time.monotonic() - started:5.0f} s  {why[:150]}", flush=True)
            if arguments.show:
                print(said)
    counts = {outcome: sum(row[1] == outcome for row in rows) for outcome in (PASSED, FAILED, SKIPPED)}
    print("field: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts[FAILED] else 0


if __name__ == "__main__":
    sys.exit(main())
