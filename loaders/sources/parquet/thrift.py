"""Parse structs of Thrift's compact protocol, keeping some fields and skipping the others.

Everything that damage could inflate is bounded: numbers by their type, lists and strings by the
data, and the nesting depth. ValueError for an invalid struct, IndexError for a truncated one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Fields = dict[int, Any]


class Shape(NamedTuple):
    """Numbers of the fields to keep, None for a number; with `item`, for the structs of a list."""

    fields: dict[int, Shape | None]
    item: Callable[[Fields], Any] | None = None  # converts each struct as soon as it is read


_MOST_DEPTH = 32
_MOST_FIELD = 0x7FFF
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_BITS = {_I16: 16, _I32: 32, _I64: 64}
_NOTHING = Shape({})


def struct(data: bytes, at: int, shape: Shape, depth: int = 0) -> tuple[Fields, int]:
    """The fields of a struct that are in `shape`, and the offset of the struct's end.

    A field of another type than in its shape is skipped, as in Thrift's own readers.
    """
    if depth > _MOST_DEPTH:
        raise ValueError("structs are nested too deeply")
    fields: Fields = {}
    number = 0
    while byte := data[at]:
        kind, step = byte & 15, byte >> 4
        at += 1
        if step:
            number += step
        else:
            number, at = _integer(data, at, 16)
        if not 0 < number <= _MOST_FIELD:
            raise ValueError(f"a field of the number {number}")
        if number in shape.fields:
            value, at = _value(kind, data, at, shape.fields[number], depth)
            if value is not None:
                fields[number] = value
        else:
            at = _value(kind, data, at, None, depth)[1]
    return fields, at + 1


def _value(kind: int, data: bytes, at: int, shape: Shape | None, depth: int) -> tuple[Any, int]:
    """A value (None if it is not in `shape`) and the offset of its end."""
    plain = shape is None
    if kind in _BITS:
        value, at = _integer(data, at, _BITS[kind])
        return value if plain else None, at
    if kind == _BINARY:
        length, at = _varint(data, at, 32)
        return None, _end(data, at, length)
    if kind == _STRUCT:
        fields, at = struct(data, at, shape or _NOTHING, depth + 1)
        return None if shape is None or shape.item else fields, at
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE if plain else None, at
    if kind in (_LIST, _SET):
        return _list(data, at, shape, depth)
    if kind == _BYTE:
        return None, _end(data, at, 1)
    if kind == _DOUBLE:
        return None, _end(data, at, 8)
    raise ValueError(f"a field of the unknown type {kind}")


def _list(data: bytes, at: int, shape: Shape | None, depth: int) -> tuple[Any, int]:
    if depth > _MOST_DEPTH:
        raise ValueError("lists are nested too deeply")
    count, kind = data[at] >> 4, data[at] & 15
    at += 1
    if count == 15:
        count, at = _varint(data, at, 32)
    end = _end(data, at, count)  # an item has at least one byte
    if kind in (_TRUE, _FALSE, _BYTE):
        return None, end
    if shape is None or shape.item is None or kind != _STRUCT:
        for _ in range(count):
            at = _value(kind, data, at, None, depth + 1)[1]
        return None, at
    items = []
    for _ in range(count):
        fields, at = struct(data, at, shape, depth + 1)
        items.append(shape.item(fields))
    return items, at


def _end(data: bytes, at: int, length: int) -> int:
    if at + length > len(data):
        raise IndexError
    return at + length


def _integer(data: bytes, at: int, bits: int) -> tuple[int, int]:
    value, at = _varint(data, at, bits)
    return value >> 1 ^ -(value & 1), at


def _varint(data: bytes, at: int, bits: int) -> tuple[int, int]:
    value = data[at]
    if value < 128:
        return value, at + 1
    value &= 127
    for shift in range(7, bits, 7):
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> bits:
                break
            return value, at + 1
    raise ValueError(f"a number of more than {bits} bits")
