"""Layout of a store's file, and the records and checksums that make it safe to trust.

The file is a header page, one record per sample, and the pixels. A record locates an image, and
carries a check of itself and a checksum of the pixels. So it is harmless if a processor or a kernel
makes writes visible in another order, if a process is killed in between, or if a machine loses
power: an image whose record or pixels do not match counts as missing, and is decoded again.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import Any

import numpy as np

PAGE = 4096
USED_AT = PAGE - 8  # in the header: bytes of pixels allocated so far, as an int64
PROBE_AT = USED_AT - 8  # in the header: 8 scratch bytes
ALIGNMENT = 64  # of images in the file
MAGIC = b"\x89MILLDC1"

RECORD = np.dtype(
    [
        ("offset", "<i8"),  # of the image, from the start of the pixels
        ("stamp", "<u8"),  # of the encoded image when it was decoded
        ("height", "<i4"),
        ("width", "<i4"),
        ("checksum", "<u4"),  # of the pixels
        ("check", "<u4"),  # of the record itself and the sample's id
    ]
)

_START = struct.Struct("<8sII")  # magic, and the header's length and checksum


def pixels_at(count: int) -> int:
    """Bytes from the file's start to the pixels of a store for `count` samples."""
    return PAGE + -(-count * RECORD.itemsize // PAGE) * PAGE


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def pack_header(content: dict[str, Any]) -> bytes:
    """The header page, with no pixels allocated."""
    text = json.dumps(content).encode()
    return (_START.pack(MAGIC, len(text), zlib.crc32(text)) + text).ljust(PAGE, b"\0")


def read_header(page: bytes) -> dict[str, Any] | None:
    """The header's content; None if these bytes are not a header."""
    if len(page) < PAGE:
        return None
    magic, length, checksum = _START.unpack_from(page)
    text = page[_START.size : _START.size + length]
    if magic != MAGIC or length > PROBE_AT - _START.size or zlib.crc32(text) != checksum:
        return None
    try:
        content = json.loads(text)
    except ValueError:  # an empty text has a checksum of zero
        return None
    return content if isinstance(content, dict) else None


def make_record(id: int, offset: int, image: np.ndarray, stamp: int) -> np.ndarray:
    """A record [1] of an image, including its check."""
    height, width, _ = image.shape
    record = np.array([(offset, stamp, height, width, checksum(image), 0)], RECORD)
    record["check"] = checks(record, np.array([id], np.int64))
    return record


def checks(records: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The check [n] that each of n records should hold."""
    mixed = ids.astype(np.uint64)
    for name in ("offset", "stamp", "height", "width", "checksum"):
        mixed = (mixed ^ records[name].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def whole(records: np.ndarray, ids: np.ndarray, pixels: int) -> np.ndarray:
    """True [n] for records that are present, complete, and within `pixels` bytes of pixels."""
    height, width = records["height"].astype(np.int64), records["width"].astype(np.int64)
    fits = (height > 0) & (width > 0) & (width <= pixels // (3 * np.maximum(height, 1)))
    size = np.where(fits, height * width * 3, pixels)  # otherwise the product may overflow
    inside = (records["offset"] >= 0) & (records["offset"] <= pixels - size)
    return fits & inside & (records["check"] == checks(records, ids))


def checksum(image: np.ndarray) -> int:
    """Checksum of pixels at memory speed: pages are summed, and the sums are hashed."""
    flat = image.reshape(-1)
    pages = flat.size // PAGE
    words = flat[: pages * PAGE].view(np.uint64).reshape(pages, PAGE // 8)
    sums = np.add.reduce(words, axis=1)
    return zlib.crc32(flat[pages * PAGE :].tobytes(), zlib.crc32(sums.tobytes()))


def content_stamp(data: bytes | memoryview) -> int:
    """Stamp of encoded bytes, never 0."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1
