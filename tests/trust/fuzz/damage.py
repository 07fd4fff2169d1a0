"""Damage to bytes: flipped bits, truncation, moved pieces, changed lengths, random blocks."""

from __future__ import annotations

import random

_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def damaged(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Name of the damage, and the damaged bytes; always different from `data`."""
    while True:
        name = draw.choice(list(_KINDS))
        changed = bytes(_KINDS[name](bytearray(data), draw))
        if changed != data:
            return name, changed


def _flip(data: bytearray, draw: random.Random) -> bytearray:
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        data[_place(data, draw)] ^= 1 << draw.randrange(8)
    return data


def _cut(data: bytearray, draw: random.Random) -> bytearray:
    return data[: _place(data, draw)]


def _lose(data: bytearray, draw: random.Random) -> bytearray:
    start, size = _block(data, draw)
    del data[start : start + size]
    return data


def _repeat(data: bytearray, draw: random.Random) -> bytearray:
    start, size = _block(data, draw)
    data[start:start] = data[start : start + size]
    return data


def _move(data: bytearray, draw: random.Random) -> bytearray:
    start, size = _block(data, draw)
    piece = data[start : start + size]
    del data[start : start + size]
    target = draw.randrange(len(data) + 1)
    data[target:target] = piece
    return data


def _zero(data: bytearray, draw: random.Random) -> bytearray:
    start, size = _block(data, draw)
    data[start : start + size] = bytes(size)
    return data


def _noise(data: bytearray, draw: random.Random) -> bytearray:
    start, size = _block(data, draw)
    data[start : start + size] = draw.randbytes(size)
    return data


def _number(data: bytearray, draw: random.Random) -> bytearray:
    width = draw.choice((1, 2, 4, 8))
    start = _place(data, draw)
    number = draw.choice(_NUMBERS) & (2 ** (8 * width) - 1)
    data[start : start + width] = number.to_bytes(width, draw.choice(("little", "big")))
    return data


def _place(data: bytearray, draw: random.Random) -> int:
    """Position of any byte; half of the time near either end, where headers and directories are."""
    near = min(len(data), 600)
    kind = draw.randrange(4)
    if kind == 0:
        return draw.randrange(near)
    return len(data) - 1 - draw.randrange(near) if kind == 1 else draw.randrange(len(data))


def _block(data: bytearray, draw: random.Random) -> tuple[int, int]:
    start = _place(data, draw)
    return start, min(1 << draw.randrange(12), len(data) - start)


_KINDS = {
    "bits": _flip,
    "cut": _cut,
    "lost": _lose,
    "repeated": _repeat,
    "moved": _move,
    "zeros": _zero,
    "noise": _noise,
    "number": _number,
}
