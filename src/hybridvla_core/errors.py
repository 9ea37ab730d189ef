"""One exception type for everything a person can fix.

A message says what is wrong, where, and what to do next. Command-line verbs and nodes print it without a traceback.
"""
from __future__ import annotations

from typing import Iterable


class HybridVLAError(Exception):
    """Base class of all errors that are explained to the user in one sentence."""


class ConfigurationError(HybridVLAError):
    """A configuration file or value does not fit."""


class CheckpointError(HybridVLAError):
    """A checkpoint folder is incomplete, altered, or does not fit the rig."""


class ObservationError(HybridVLAError):
    """An image, state or instruction cannot be used."""


class DeviceError(HybridVLAError):
    """The GPU failed or has too little memory."""


class DataError(HybridVLAError):
    """A data set, an episode or a record cannot be used."""


class WireError(HybridVLAError):
    """Data received over a connection are not as expected."""


def few(names: Iterable[object], most: int = 4) -> str:
    """Returns the names, sorted, for a message, never more than a line; `none` if there are none."""
    listed = sorted(str(name) for name in names)
    short = [name if len(name) <= 120 else name[:117] + "..." for name in listed[:most]]
    return (", ".join(short) or "none") + (f" and {len(listed) - most} more" if len(listed) > most else "")
