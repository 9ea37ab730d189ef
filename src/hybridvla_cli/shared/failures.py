"""Makes one sentence of anything that can go wrong in a verb: what, at which option or file, and what to do."""
from __future__ import annotations

import argparse
import os
from pathlib import Path
from types import TracebackType
from typing import Iterator, Optional, Tuple

from hybridvla_core.errors import HybridVLAError

#: Error messages of a compiled package that was built for another numpy.
_OTHER_NUMPY = ("numpy.dtype size changed", "numpy.core.multiarray failed to import", "_ARRAY_API not found",
                "compiled using NumPy 1.x cannot be run in")
_LONGEST = 300


def sentence(error: BaseException, args: Optional[argparse.Namespace] = None) -> str:
    """Returns what to print about an error that ended a verb.

    Args:
        error: The exception that was raised.
        args: The verb's parsed options; None if they were not parsed yet.
    """
    if isinstance(error, HybridVLAError):
        return " ".join(str(error).split())
    text = _shortened(" ".join(str(error).split()))
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name} is not installed here; run `make setup`, or `hybridvla doctor`"
    if any(words in text for words in _OTHER_NUMPY):
        return f"a compiled package was made for another numpy ({text}); run `hybridvla doctor`, then `make setup`"
    if isinstance(error, ImportError):
        return f"a Python package cannot be used ({text}); run `hybridvla doctor`"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{_readable(error.filename)}: {error.strerror}; check the path and its permissions"
    if isinstance(error, MemoryError):
        return f"not enough memory{_where(error, args)}; end other programs, or use a smaller input"
    kind = type(error).__name__
    return (f"{text or kind}{_where(error, args)} ({kind}); check what is given there, or see the whole error with --debug")


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


def _readable(name: object) -> str:
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else str(name)


def _where(error: BaseException, args: Optional[argparse.Namespace]) -> str:
    """Returns ` at --option VALUE` or ` at FILE`: the last value given by the user that the failing code was handling."""
    given = dict(_given(args)) if args is not None else {}
    file = ""
    for value in _locals(error.__traceback__):
        if value in given:
            inner = f" ({file})" if file and file != value and Path(value) in Path(file).parents else ""
            return f" at {given[value]} {value}{inner}"
        if not file and os.path.isfile(value):
            file = value
    return f" at {file}" if file else ""


def _given(args: argparse.Namespace) -> Iterator[Tuple[str, str]]:
    """Yields the options' values as text, and their names. Numbers and switches are too common to be recognised."""
    for name, value in vars(args).items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, (str, Path)) and str(one) and name not in ("verb", "part"):
                yield str(one), "--" + name.replace("_", "-")


def _locals(trace: Optional[TracebackType]) -> Iterator[str]:
    """Yields texts and paths among the local variables, from where the error was raised outwards; does not look into args."""
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        for value in list(frame.f_locals.values()):
            if isinstance(value, (str, Path)) and 0 < len(str(value)) < 4096 and "\0" not in str(value):
                yield str(value)
