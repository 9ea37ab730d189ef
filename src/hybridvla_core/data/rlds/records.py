"""Reading of TFRecord files with their checksums checked, and of the steps in a record as arrays."""
from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple, Union

import numpy as np

from hybridvla_core.errors import DataError

MASK_DELTA = 0xA282EAD8
LARGEST = 2 ** 31           # a longer record is a damaged length
Values = Union[np.ndarray, List[bytes]]


class RecordError(DataError):
    """One record is damaged; the next one can be read if `ends` is False."""

    def __init__(self, sentence: str, ends: bool) -> None:
        super().__init__(sentence)
        self.ends = ends


def masked_crc(data: bytes) -> int:
    """Returns TFRecord's checksum of some bytes."""
    import crc32c

    crc = crc32c.crc32c(data)
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def records(path: Path) -> Iterator[Tuple[int, Union[bytes, RecordError]]]:
    """Reads the records of a file; a damaged length ends the reading.

    The reader of the tfrecord package checks no checksum and returns a buffer that it reuses.

    Args:
        path: Path of the file.

    Yields:
        (number, its bytes or what is wrong with it) of each record.
    """
    with open(path, "rb") as stream:
        number = 0
        while True:
            head = stream.read(12)
            if not head:
                return
            if len(head) < 12 or masked_crc(head[:8]) != struct.unpack("<I", head[8:])[0]:
                yield number, RecordError(f"{path.name}: record {number}: its length is damaged or the file is cut off; the rest "
                                          "of the file cannot be read", True)
                return
            length = struct.unpack("<Q", head[:8])[0]
            if length > LARGEST:
                yield number, RecordError(f"{path.name}: record {number} would have {length} bytes", True)
                return
            data, tail = stream.read(length), stream.read(4)
            if len(data) < length or len(tail) < 4:
                yield number, RecordError(f"{path.name}: record {number} is cut off", True)
                return
            if masked_crc(data) != struct.unpack("<I", tail)[0]:
                yield number, RecordError(f"{path.name}: record {number}: its checksum does not match; it is damaged", False)
            else:
                yield number, data
            number += 1


def features_of(record: bytes) -> Dict[str, Values]:
    """Decodes a serialised example.

    Args:
        record: Bytes of the record.

    Returns:
        Feature -> flat numbers, or a list of bytes.

    Raises:
        DataError: The bytes are not an example.
    """
    from google.protobuf.message import DecodeError
    from tfrecord import example_pb2

    example = example_pb2.Example()
    try:
        example.ParseFromString(record)
    except DecodeError as error:
        raise DataError(f"holds no example ({error})") from error
    found: Dict[str, Values] = {}
    for key, feature in example.features.feature.items():
        kind: Any = feature.WhichOneof("kind")
        if kind == "bytes_list":
            found[key] = list(feature.bytes_list.value)
        elif kind is not None:
            found[key] = np.asarray(getattr(feature, kind).value)
    return found
