"""Work spread over processes: a worker that dies is reported, and no process is left behind however the work ends."""
from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Deque, Iterator, List, Sequence, Tuple, TypeVar

from hybridvla_core.errors import HybridVLAError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
#: Jobs per process that are submitted before the first result is taken. Results that wait are held in memory.
AHEAD = 8


def in_processes(function: Callable[[JobT], ResultT], jobs: Sequence[JobT], processes: int, start: Callable[..., object],
                 arguments: Tuple[object, ...], advice: str) -> Iterator[ResultT]:
    """Yields the results of jobs in the order of the jobs.

    Args:
        function: Function that does one job; it must be at module level, since workers import it by name.
        jobs: Jobs to do.
        processes: Number of processes that work in parallel.
        start: Function that initialises a worker.
        arguments: Arguments of `start`.
        advice: What to do when a worker has died, for the error message.

    Raises:
        HybridVLAError: `start` or a job raised it, or a worker process ended without a result.
    """
    done = 0
    pending: Deque[Any] = deque()      # futures of results
    try:
        with workers(processes, _start, (start, arguments)) as executor:
            for number in range(len(jobs) + AHEAD * processes):
                if number < len(jobs):
                    with workers_ignore_interrupts():
                        pending.append(executor.submit(_run, function, jobs[number]))
                if pending and (number + 1 >= AHEAD * processes):
                    result = pending.popleft().result()
                    done += 1
                    yield result
    except BrokenProcessPool as error:
        raise HybridVLAError(f"a worker process ended without a result after {done} of {len(jobs)} episodes (killed, or out of "
                             f"memory?); {advice}") from error


#: Why this worker could not start. An error that leaves an initialiser breaks the pool, and its sentence is lost.
_UNSTARTED: List[HybridVLAError] = []


def _start(start: Callable[..., object], arguments: Tuple[object, ...]) -> None:
    try:
        start(*arguments)
    except HybridVLAError as error:
        _UNSTARTED[:] = [error]


def _run(function: Callable[[JobT], ResultT], job: JobT) -> ResultT:
    if _UNSTARTED:
        raise _UNSTARTED[0]
    return function(job)


@contextlib.contextmanager
def workers(processes: int, start: Callable[..., object], arguments: Tuple[object, ...]) -> Iterator[ProcessPoolExecutor]:
    """Keeps worker processes for as long as the block runs. None is left behind; if the block fails, they are not waited for.

    Args:
        processes: Number of processes that work in parallel.
        start: Function that initialises a worker.
        arguments: Arguments of `start`.

    Yields:
        The executor of the processes, once for the whole block.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):     # on small matrices, threads only wait for each other
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
    """Makes processes that start inside the block ignore Ctrl-C: this process receives it and ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
