"""Damaged copies of bytes, as a disk, a dropped connection or an attacker would produce them."""

from __future__ import annotations

import random
from collections.abc import Callable

_NUMBERS = (0, 1, 2, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def mutate(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Apply one to three changes to `data`; some insert parts of `other`."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_CHANGES)(changed, rng, other or data)
    return bytes(changed)


def _flip_bits(data: bytearray, rng: random.Random, other: bytes) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _truncate(data: bytearray, rng: random.Random, other: bytes) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _put_number(data: bytearray, rng: random.Random, other: bytes) -> None:
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    number = rng.choice((*_NUMBERS, rng.getrandbits(64), len(data))) % (1 << 8 * size)
    at = _place(data, rng)
    data[at : at + size] = number.to_bytes(size, order)


def _put_digits(data: bytearray, rng: random.Random, other: bytes) -> None:
    """Change a number in text, as in JSON and tar headers."""
    places = [at for at in range(len(data)) if 48 <= data[at] < 58]
    if places:
        at = rng.choice(places)
        data[at : at + rng.randrange(1, 4)] = b"%d" % rng.choice((*_NUMBERS, rng.randrange(1000)))


def _put_block(data: bytearray, rng: random.Random, other: bytes) -> None:
    at, size = _place(data, rng), rng.choice((4, 16, 64, 512))
    data[at : at + size] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))


def _splice(data: bytearray, rng: random.Random, other: bytes) -> None:
    start, at = rng.randrange(len(other) + 1), _place(data, rng)
    part = other[start : start + rng.randrange(1, 600)]
    data[at : at + rng.choice((0, len(part)))] = part


def _cut_out(data: bytearray, rng: random.Random, other: bytes) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 4, 64, 512))]


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


_CHANGES: tuple[Callable[[bytearray, random.Random, bytes], None], ...] = (
    _flip_bits, _flip_bits, _truncate, _put_number, _put_number, _put_digits, _put_block, _splice,
    _cut_out,
)  # fmt: skip
