#!/usr/bin/env python3
"""Runs a command and prints its peak private memory: resident anonymous pages, without mapped files.

usage: peak_memory.py COMMAND [ARGUMENT ...]
"""
from __future__ import annotations

import subprocess
import sys
import time


def private_bytes(pid: int) -> int:
    """Returns RssAnon of a process, 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def main() -> int:
    started, peak = time.monotonic(), 0
    with subprocess.Popen(sys.argv[1:]) as process:
        while process.poll() is None:
            peak = max(peak, private_bytes(process.pid))
            time.sleep(0.02)
    print(f"peak private memory {peak / 2 ** 20:.0f} MiB, {time.monotonic() - started:.1f} s", file=sys.stderr)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
