"""`make rigs`: both rigs without hardware, through their real launch files. Results in out/rigs: summary.json, index.html.

Each rig is a module with `run(folder, ...) -> dict` (its part of the summary) and runs in its own process.
"""
from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from hybridvla_core.files import renew_folder
from hybridvla_core.paths import ROOT
from hybridvla_ros.demos.command import carry_out
from hybridvla_ros.demos.rigs_page import write_page
from hybridvla_ros.runtime.leftovers import descendants, end_all

END_S = 60.0     # for a rig that is told to end

#: Key of the summary -> module.
RIGS = {"fr3": "hybridvla_ros.demos.rigs_fr3", "agilex": "hybridvla_ros.demos.rigs_agilex"}


def run_one(name: str, folder: Path, episodes: Optional[int]) -> Dict[str, Any]:
    """Runs one rig in this process; returns its part of the summary."""
    module = importlib.import_module(RIGS[name])
    return module.run(folder, **({"episodes": episodes} if episodes else {}))


def run(names: List[str], folder: Path, episodes: Optional[int]) -> Dict[str, Any]:
    """Runs every rig in turn; a rig that fails to run is reported with its error and no success."""
    summary: Dict[str, Any] = {}
    for name in names:
        began = time.monotonic()
        part = folder / name / "part.json"
        command = [sys.executable, "-m", "hybridvla_ros.demos.rigs", "--only", name, "--out", str(folder), "--part", str(part)]
        process = subprocess.Popen(command + (["--episodes", str(episodes)] if episodes else []))
        try:
            status = process.wait()
        finally:
            started = descendants(process.pid)
            if process.poll() is None:          # this process is ending: the rig ends its own graph, which takes a while
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_S)
            end_all(started | {process.pid} if process.poll() is None else started)
        if status == 0 and part.exists():
            summary[name] = json.loads(part.read_text(encoding="utf-8"))
        else:
            summary[name] = {"episodes": 0, "successes": 0, "limit_violations": 0, "error": f"exit status {status}"}
        summary[name]["wall_s"] = round(time.monotonic() - began, 1)
        print(f"{name}: {summary[name]['successes']}/{summary[name]['episodes']} episodes successful, "
              f"{summary[name]['limit_violations']} limit violations", flush=True)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    write_page(folder, summary)
    return summary


def good(part: Dict[str, Any]) -> bool:
    """Tells whether episodes were run, at most one of them failed, and no target broke a limit."""
    return part["episodes"] > 0 and part["successes"] >= max(1, part["episodes"] - 1) and part["limit_violations"] == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make rigs", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(ROOT / "out" / "rigs"))
    parser.add_argument("--only", choices=sorted(RIGS), help="one rig")
    parser.add_argument("--episodes", type=int, help="episodes of each rig")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = Path(arguments.out)

    def work() -> int:
        if arguments.part:
            return write_part(Path(arguments.part), arguments.only, folder, arguments.episodes)
        return show([arguments.only] if arguments.only else list(RIGS), folder, arguments.episodes)

    return carry_out("rigs", work)


def write_part(file: Path, name: str, folder: Path, episodes: Optional[int]) -> int:
    """Runs one rig in this process and writes its part of the summary into `file`; returns 0."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(run_one(name, folder / name, episodes)) + "\n", encoding="utf-8")
    return 0


def show(names: List[str], folder: Path, episodes: Optional[int]) -> int:
    """Runs the rigs anew and writes the page; returns 0 where each did well."""
    renew_folder(folder, "the show of the rigs")
    summary = run(names, folder, episodes)
    print(f"look at {folder / 'index.html'}")
    return 0 if all(good(part) for part in summary.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
