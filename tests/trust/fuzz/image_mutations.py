"""Small images of all kinds, and random mutations of their bytes."""

from __future__ import annotations

import functools
from random import Random

from helpers_odd_images import jpeg, odd, picture, saved


@functools.cache
def seeds() -> list[bytes]:
    """Encoded images of every supported kind."""
    small = picture(1, 31, 27)
    kinds = [data for data in odd().values() if len(data) > 100]
    kinds += [jpeg(n, 24 + n, 40, subsampling=n % 3, quality=20 * n + 5) for n in range(5)]
    kinds += [saved(small.convert(mode), "TIFF") for mode in ("RGB", "CMYK", "L")]
    kinds += [saved(small, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "packbits")]
    kinds += [saved(small, name) for name in ("BMP", "PPM", "JPEG2000", "AVIF", "WEBP")]
    kinds += [saved(small.convert("RGBA"), "WEBP", lossless=True), saved(small, "GIF")]
    kinds.append(saved(small, "WEBP", save_all=True, append_images=[picture(2, 31, 27)]))
    return kinds


def mutated(random: Random) -> bytes:
    data = bytearray(random.choice(seeds()))
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        random.choice(MUTATIONS)(data, random)
    return bytes(data)


def _flip(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at : at + 1] = bytes([data[at] ^ 1 << random.randrange(8)]) if at < len(data) else b""


def _byte(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at : at + 1] = bytes([random.choice((0, 1, 127, 128, 254, 255, random.randrange(256)))])


def _number(data: bytearray, random: Random) -> None:
    """Write an extreme number, as if into a size or an offset."""
    size, at = random.choice((2, 4)), _place(data, random)
    most, order = 2 ** (8 * size) - 1, random.choice(("big", "little"))
    number = random.choice((0, 1, most, most // 2 + 1, min(random.randrange(70_000), most)))
    data[at : at + size] = number.to_bytes(size, order)


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data) + 1) :]
    data += random.choice((b"", b"", b"\xff\xd9", bytes(64)))


def _remove(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    del data[at : at + random.choice((1, 2, 9, 100))]


def _repeat(data: bytearray, random: Random) -> None:
    at, size = _place(data, random), random.choice((1, 2, 9, 100))
    data[at:at] = data[at : at + size]


def _splice(data: bytearray, random: Random) -> None:
    other = random.choice(seeds())
    start = random.randrange(len(other))
    at = _place(data, random)
    data[at : at + random.choice((0, 40, 400))] = other[start : start + random.choice((4, 40, 400))]


def _noise(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at : at + 16] = random.randbytes(16)


def _marker(data: bytearray, random: Random) -> None:
    """Change a JPEG marker, or insert one anywhere."""
    places = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1]]
    at = random.choice(places) if places and random.random() < 0.7 else _place(data, random)
    data[at : at + 2] = bytes([0xFF, random.choice((*range(0xC0, 0xE3), 0xEE, 0xFE))])


def _place(data: bytearray, random: Random) -> int:
    """Random position, in headers more often than in pixels."""
    return random.randrange(min(len(data), random.choice((40, 700, 1 << 30))) + 1)


MUTATIONS = (_flip, _byte, _number, _cut, _remove, _repeat, _splice, _noise, _marker)
