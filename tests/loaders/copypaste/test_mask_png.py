"""Grey PNGs as PIL has them, however they were written; anything else is a clear error."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import mask_png
from patchmill.loaders.copypaste.mask_png import decode_mask, encode_mask
from patchmill.loaders.decode.decoder import BadImage

sides = st.integers(1, 70)


def nowhere() -> str:
    raise AssertionError("nobody asks where a sound mask is")


def noise(height: int, width: int) -> np.ndarray:
    """Random levels in long runs, as in masks."""
    steps = np.random.default_rng(height * 71 + width).integers(-3, 4, (height, width))
    return (np.cumsum(steps, 1) % 256).astype(np.uint8)


def by_pil(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def filtered(plane: np.ndarray, filters: np.ndarray) -> bytes:
    """Encode a PNG with these row filters, as specified."""
    rows, above = [], np.zeros(plane.shape[1] + 1, int)
    for row, kind in zip(plane.astype(int), filters, strict=True):
        here = np.r_[0, row]
        left, up, corner = here[:-1], above[1:], above[:-1]
        p = left + up - corner
        far = np.abs(np.stack([p - left, p - up, p - corner]))
        paeth = np.stack([left, up, corner])[far.argmin(0), np.arange(len(row))]
        guess = [0 * left, left, up, (left + up) // 2, paeth][kind]
        rows.append(np.r_[kind, (row - guess) % 256].astype(np.uint8).tobytes())
        above = here
    data = encode_mask(plane)
    packed = zlib.compress(b"".join(rows))
    head = struct.unpack_from(">I", data, 33)[0]
    body = b"IDAT" + packed
    chunk = struct.pack(">I", len(packed)) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33 + 12 + head :]


@given(sides, sides)
def test_eight_bits_are_stored_unchanged(height: int, width: int) -> None:
    plane = noise(height, width)
    found = decode_mask(encode_mask(plane), nowhere)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, plane)


@given(sides, sides)
def test_four_bits_are_the_nearest_of_sixteen_levels(height: int, width: int) -> None:
    plane = noise(height, width)
    data = encode_mask(plane, 4)
    found = decode_mask(data, nowhere)
    np.testing.assert_array_equal(found, np.rint(plane / 17) * 17)
    np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(data)).convert("L")))
    edges = np.array([[0, 255]], np.uint8)
    np.testing.assert_array_equal(decode_mask(encode_mask(edges, 4), nowhere), edges)


@settings(deadline=None)  # it compiles
@given(sides, sides, st.data())
def test_every_filter(height: int, width: int, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    plane = noise(height, width)
    png = filtered(plane, np.array(kinds))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), plane)
    np.testing.assert_array_equal(mask_png._decode_png(png), plane)


@settings(deadline=None)
@given(sides, sides, st.sampled_from(["PNG", "BMP", "TIFF"]))
def test_pngs_of_other_programs(height: int, width: int, kind: str) -> None:
    plane = noise(height, width)
    found = decode_mask(by_pil(Image.fromarray(plane), kind), nowhere)
    np.testing.assert_array_equal(found, plane)


def test_other_depths_are_converted_to_eight_bits() -> None:
    plane = noise(20, 30)
    bits = decode_mask(by_pil(Image.fromarray(plane > 127)), nowhere)
    np.testing.assert_array_equal(bits, np.where(plane > 127, 255, 0))
    sixteen = Image.fromarray(plane.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode_mask(by_pil(sixteen), nowhere), plane)


@pytest.mark.parametrize(
    ("mode", "told"),
    [("RGB", "3 channels"), ("RGBA", "4 channels"), ("LA", "2 channels"), ("P", "a palette")],
)
def test_a_mask_with_colours_is_an_error_that_says_where(mode: str, told: str) -> None:
    data = by_pil(Image.fromarray(noise(9, 9)).convert(mode))
    with pytest.raises(MillError, match=f"^here has {told}, but a mask is grey"):
        decode_mask(data, lambda: "here")


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.sampled_from([4, 8]))
def test_any_changed_byte_is_noticed_or_harmless(place: float, change: int, bits: int) -> None:
    plane = np.rint(noise(12, 18) / 17).astype(np.uint8) * np.uint8(17)
    data = bytearray(encode_mask(plane, bits))
    data[int(place * len(data))] ^= change
    try:
        found = decode_mask(bytes(data), lambda: "")
    except (BadImage, MillError):
        return
    if found.shape == plane.shape:
        np.testing.assert_array_equal(found, plane)


@pytest.mark.parametrize("size", [0, 5, 20, 33, 45, -13, -1])
def test_cut_short(size: int) -> None:
    data = encode_mask(noise(40, 40))
    with pytest.raises(BadImage, match="cannot be decoded"):
        decode_mask(data[:size] if size != -1 else b"no image", nowhere)


def test_too_many_pixels_are_refused_before_there_is_memory_for_them() -> None:
    data = bytearray(encode_mask(noise(4, 4)))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(BadImage):
        decode_mask(bytes(data), nowhere)
