"""Frames of the openpi wire: msgpack maps in which an array is `{b"__ndarray__", b"data", b"dtype", b"shape"}`.

Nothing is unpickled: only plain numbers, texts, lists, maps and arrays of the types below come out. The number of an array's
bytes must match its shape before any memory is allocated for it, and a frame that unfolds into too many entries is not read on.
"""
from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping

import msgpack
import numpy as np

from hybridvla_core.errors import WireError

#: Element types that are allowed on the wire, in numpy's notation.
DTYPES = ("|b1", "|u1", "|i1", "<u2", "<i2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
#: Longest frame that is read, bytes; largest number of axes of an array, and of entries of a frame's maps and lists together;
#: longest text.
MAX_FRAME, MAX_AXES, MAX_ENTRIES, MAX_TEXT = 32 << 20, 5, 4096, 64 << 10


def pack(message: Mapping[str, Any]) -> bytes:
    """Returns the frame of a map whose values may be numpy arrays.

    Raises:
        WireError: for a value that the wire cannot carry.
    """
    try:
        return bytes(msgpack.packb(message, default=_pack_array))
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"a message cannot be sent ({error}); send numbers, texts, lists, maps and arrays") from error


def unpack(frame: bytes) -> Dict[str, object]:
    """Returns the map of a frame; its arrays are read-only views of the frame's bytes.

    Raises:
        WireError: for anything else, in one sentence.
    """
    if len(frame) > MAX_FRAME:
        raise WireError(f"a frame of {len(frame)} bytes came, at most {MAX_FRAME} are read; send smaller images")
    total = _Total()
    try:
        message = msgpack.unpackb(frame, object_hook=total.of_map, list_hook=total.of_list, raw=False, strict_map_key=True,
                                  max_str_len=MAX_TEXT, max_bin_len=MAX_FRAME, max_array_len=MAX_ENTRIES,
                                  max_map_len=MAX_ENTRIES, max_ext_len=0)
    except WireError:
        raise
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        raise WireError(f"a frame is not msgpack as openpi writes it ({type(error).__name__}: {str(error)[:80]}); check that "
                        "both ends speak the same protocol") from error
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise WireError(f"a frame holds a {type(message).__name__}, and a map of names is wanted; check that both ends speak the "
                        "same protocol")
    return message


def _pack_array(value: object) -> Dict[bytes, Any]:
    """Packs a value that msgpack cannot write itself."""
    if isinstance(value, np.ndarray):
        if value.dtype.str not in DTYPES:
            raise TypeError(f"an array of {value.dtype.str}")
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic) and value.dtype.str in DTYPES:
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__}")


class _Total:
    """Counts the entries of a frame's maps and lists as each is complete: a byte can become an object of fifty."""

    def __init__(self) -> None:
        self._entries = 0

    def of_list(self, entries: List[object]) -> List[object]:
        self._add(len(entries))
        return entries

    def of_map(self, entry: Mapping[object, object]) -> object:
        self._add(len(entry))
        return _unpack_array(entry)

    def _add(self, count: int) -> None:
        self._entries += 1 + count      # its own object counts, too: empty lists take memory
        if self._entries > MAX_ENTRIES:
            raise WireError(f"a frame holds more than {MAX_ENTRIES} entries in its lists and maps; send numbers as arrays")


def _unpack_array(entry: Mapping[object, object]) -> object:
    if b"__npgeneric__" in entry:
        value = entry.get(b"data")
        if not isinstance(value, (bool, int, float)):
            raise WireError(f"a number came as a {type(value).__name__}")
        return value
    if b"__ndarray__" not in entry:
        return entry
    name, shape, data = entry.get(b"dtype"), entry.get(b"shape"), entry.get(b"data")
    if not isinstance(name, str) or name not in DTYPES:
        raise WireError(f"an array has the element type {str(name)[:20]!r}; allowed are {', '.join(DTYPES)}")
    if (not isinstance(shape, (list, tuple)) or len(shape) > MAX_AXES or not isinstance(data, bytes)
            or any(type(extent) is not int or extent < 0 for extent in shape)):
        raise WireError(f"an array's shape is {str(shape)[:40]} and its data {type(data).__name__}; needed are at most "
                        f"{MAX_AXES} numbers from 0 on, and bytes")
    dtype = np.dtype(name)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"an array of shape {tuple(shape)} and type {name} came with {len(data)} bytes, and needs "
                        f"{math.prod(shape) * dtype.itemsize}")
    return np.frombuffer(data, dtype=dtype).reshape(shape)
