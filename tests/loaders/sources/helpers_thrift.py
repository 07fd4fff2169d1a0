"""Thrift's compact protocol, read and written whole, to change the footers of Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Struct = dict[int, tuple[int, Any]]  # type and value by the number of the field

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)


def read_footer(path: Path) -> Struct:
    data = path.read_bytes()
    return _read(STRUCT, data, len(data) - 8 - int.from_bytes(data[-8:-4], "little"))[0]


def with_footer(path: Path, footer: bytes) -> bytes:
    """The bytes of a Parquet file with another footer."""
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def write(kind: int, value: Any) -> bytes:
    """A value; bytes of any type are written as they are."""
    if isinstance(value, bytes) and kind != BINARY:
        return value
    if kind == STRUCT:
        data, last = b"", 0
        for number, (one, inner) in sorted(value.items()):
            data += bytes([number - last << 4 | one]) + write(one, inner)
            last = number
        return data + b"\0"
    if kind == LIST:
        item, items = value
        return (
            bytes([15 << 4 | item]) + _varint(len(items)) + b"".join(write(item, i) for i in items)
        )
    if kind == BINARY:
        return _varint(len(value)) + value
    return b"" if kind in (TRUE, FALSE) else _varint(value << 1 ^ value >> 63)


def _read(kind: int, data: bytes, at: int) -> tuple[Any, int]:
    if kind == STRUCT:
        fields: Struct = {}
        number = 0
        while byte := data[at]:
            number, one = number + (byte >> 4), byte & 15
            assert byte >> 4, "fields lie far apart"
            value, at = _read(one, data, at + 1)
            fields[number] = one, value
        return fields, at + 1
    if kind == LIST:
        count, item, at = data[at] >> 4, data[at] & 15, at + 1
        if count == 15:
            count, at = _read_varint(data, at)
        items = []
        for _ in range(count):
            value, at = (data[at], at + 1) if item in (TRUE, FALSE) else _read(item, data, at)
            items.append(value)
        return (item, items), at
    if kind == BINARY:
        length, at = _read_varint(data, at)
        return data[at : at + length], at + length
    if kind in (TRUE, FALSE):
        return None, at
    assert kind in (I16, I32, I64)
    value, at = _read_varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def _varint(value: int) -> bytes:
    data = bytearray()
    while value >= 128:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])
