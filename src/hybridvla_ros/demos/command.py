"""How the programs of this folder end: with a sentence for a person and a status for a script."""
from __future__ import annotations

import sys
from typing import Callable

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.runtime.leftovers import leave_on_signals

FAILED, INTERRUPTED = 1, 130


def carry_out(name: str, work: Callable[[], int], interrupted: str = "everything it had started was stopped") -> int:
    """Runs a program's work; turns an error of ours, Ctrl-C or SIGTERM into a sentence on standard error.

    Args:
        name: Name of the program.
        work: Returns the exit status.
        interrupted: What is said when it is interrupted.

    Returns:
        The exit status: the work's own, 1 after an error, 130 when interrupted.
    """
    leave_on_signals()
    try:
        return work()
    except HybridVLAError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {interrupted}", file=sys.stderr)
        return INTERRUPTED
