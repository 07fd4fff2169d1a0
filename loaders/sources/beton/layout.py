"""FFCV's .beton format, version 2, little-endian: what lies where, for the reader and the writer.

A header; one descriptor for each field; the table, one record of all fields for each sample; the
pages, which hold what is too long for the table; and, to the end of the file, the allocations: the
size of everything in the pages. FFCV writes the header's pointer to them last.

Ours may have an annex between pages and allocations, where FFCV never looks: a CRC-32 of each
sample's image, and the class names as JSON. The image field's arguments, of which FFCV uses none,
say where.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

VERSION = 2
JPG, RAW = 0, 1

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("fields", "<u2"),
        ("page_size", "<u4"),
        ("samples", "<u8"),
        ("allocations", "<u8"),  # where they begin; 0 while the file is being written
    ]
)
FIELD = np.dtype([("type", "u1"), ("name", "u1", 16), ("arguments", "u1", 1024)])
ALLOCATION = np.dtype([("sample", "<u8"), ("start", "<u8"), ("size", "<u8")])
ANNEX = np.dtype([("magic", "S8"), ("start", "<u8"), ("json_bytes", "<u8")])  # in the arguments
ANNEX_MAGIC = b"\x89MILLCRC"
CHECKSUM = np.dtype("<u4")

IMAGE_RECORD = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("start", "<u8")])
BYTES_RECORD = np.dtype([("start", "<u8"), ("size", "<u8")])


class FieldType(NamedTuple):
    """One of FFCV's types of field."""

    name: str
    record: np.dtype  # in the table


INT_TYPE, IMAGE_TYPE, BYTES_TYPE = 1, 2, 3
FIELD_TYPES = {
    0: FieldType("float", np.dtype("<f8")),
    INT_TYPE: FieldType("int", np.dtype("<i8")),
    IMAGE_TYPE: FieldType("image", IMAGE_RECORD),
    BYTES_TYPE: FieldType("bytes", BYTES_RECORD),
    4: FieldType("array", np.dtype("<u8")),
    5: FieldType("json", BYTES_RECORD),
    6: FieldType("tensor", np.dtype("<u8")),
}


def table_dtype(types: list[int]) -> np.dtype:
    """A record of the table: fields "f0", "f1", ... in the order of their descriptors."""
    return np.dtype(
        [(f"f{i}", FIELD_TYPES[kind].record) for i, kind in enumerate(types)], align=True
    )
