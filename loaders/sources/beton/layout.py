"""The layout of FFCV's .beton format, version 2, little-endian, for the reader and the writer.

In order: a header; a descriptor per field; the table, with a record of all fields per sample; the
pages, which hold variable-length data; and, to the end of the file, the allocation table: the size
of everything in the pages. FFCV writes the header's pointer to it last.

Files of our writer have an annex between pages and allocation table, which FFCV never reads: the
CRC-32 of each image, and the class names as JSON. Its offset is stored in the image field's
arguments, which FFCV does not use.
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
        ("allocations", "<u8"),  # offset of the allocation table; 0 while the file is being written
    ]
)
FIELD = np.dtype([("type", "u1"), ("name", "u1", 16), ("arguments", "u1", 1024)])
ALLOCATION = np.dtype([("sample", "<u8"), ("start", "<u8"), ("size", "<u8")])
ANNEX = np.dtype([("magic", "S8"), ("start", "<u8"), ("json_bytes", "<u8")])  # in `arguments`
ANNEX_MAGIC = b"\x89MILLCRC"
CHECKSUM = np.dtype("<u4")

IMAGE_RECORD = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("start", "<u8")])
BYTES_RECORD = np.dtype([("start", "<u8"), ("size", "<u8")])


class FieldType(NamedTuple):
    """One of FFCV's field types."""

    name: str
    record: np.dtype  # its part of a table record


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
    """The table's record: members "f0", "f1", ... in the order of the field descriptors."""
    return np.dtype(
        [(f"f{i}", FIELD_TYPES[kind].record) for i, kind in enumerate(types)], align=True
    )
