"""Work spread over processes: a worker that dies is named, and however it ends no process is left behind."""
from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Deque, Iterator, Sequence, Tuple, TypeVar

from hybridvla_core.errors import HybridVLAError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
#: Jobs for each process that are begun before the first one's result is taken: what waits to be taken is in memory.
AHEAD = 8


def in_processes(function: Callable[[JobT], ResultT], jobs: Sequence[JobT], processes: int, start: Callable[..., object],
                 arguments: Tuple[object, ...], advice: str) -> Iterator[ResultT]:
    """Yields the results of jobs in their order.

    Args:
        function: Does one job; a function of a module, since workers get it by name.
        jobs: What is to be done.
        processes: That work side by side.
        start: Begins a worker.
        arguments: Of `start`.
        advice: What to do when a worker died, for the message.

    Raises:
        HybridVLAError: A worker process ended without a result.
    """
    done = 0
    pending: Deque[Any] = deque()      # futures of results
    try:
        with workers(processes, start, arguments) as executor:
            for number in range(len(jobs) + AHEAD * processes):
                if number < len(jobs):
                    with workers_ignore_interrupts():
                        pending.append(executor.submit(function, jobs[number]))
                if pending and (number + 1 >= AHEAD * processes):
                    result = pending.popleft().result()
                    done += 1
                    yield result
    except BrokenProcessPool as error:
        raise HybridVLAError(f"a worker process ended without a result after {done} of {len(jobs)} episodes (killed, or out of "
                             f"memory?); {advice}") from error


@contextlib.contextmanager
def workers(processes: int, start: Callable[..., object], arguments: Tuple[object, ...]) -> Iterator[ProcessPoolExecutor]:
    """Worker processes for as long as the block runs; none is left behind, and none is waited for where the block fails.

    Args:
        processes: That work side by side.
        start: Begins a worker.
        arguments: Of `start`.

    Yields:
        The processes, once for the whole block.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):     # small matrices: threads only wait for each other
        os.environ.setdefault(name, "1")
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), start, arguments)
    try:
        yield executor
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        executor.shutdown()


@contextlib.contextmanager
def workers_ignore_interrupts() -> Iterator[None]:
    """Processes that start meanwhile inherit that Ctrl-C is ignored: this process hears it, and ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
