"""Records as event files hold them: length, checksum of the length, data, checksum of the data.

TensorBoard's `RecordWriter` makes the same bytes; its checksum in Python takes most of the time of a
point. The definition: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

import google_crc32c

_MASK: Final = 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """Return the data framed as one record."""
    return _header(len(data)) + data + _checksum(data)


@lru_cache(maxsize=256)
def _header(size: int) -> bytes:
    """Return the length with its checksum; the points of a curve have few different ones."""
    length = struct.pack("<Q", size)
    return length + _checksum(length)


def _checksum(data: bytes) -> bytes:
    """Return the CRC-32C, rotated and shifted as the format wants it."""
    crc: int = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & _MASK)
