"""Frame headers and segments of JPEGs, whole or damaged."""

import io

import numpy as np
import pytest
from PIL import Image

from patchmill.loaders.decode.jpeg_header import FRAME_MARKERS, jpeg_frame, jpeg_segments


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize(("mode", "components"), [("L", 1), ("RGB", 3), ("CMYK", 4)])
def test_the_frame_says_size_and_components(mode: str, components: int):
    frame = jpeg_frame(jpeg(mode))
    assert frame is not None and frame == (30, 40, components, 8, 0xC0)
    assert jpeg_frame(jpeg(mode, progressive=True)) == frame._replace(marker=0xC2)


def test_the_frame_is_the_last_segment():
    data = jpeg(comment=b"text")
    segments = list(jpeg_segments(data))
    markers = [marker for marker, _ in segments]
    assert markers[-1] == 0xC0 and not FRAME_MARKERS & set(markers[:-1]) and 0xFE in markers
    for marker, at in segments:
        assert data[at - 2 : at] == bytes((0xFF, marker))


@pytest.mark.parametrize("data", [b"", b"no JPEG", jpeg()[:3], jpeg()[:100]])
def test_without_a_frame_there_is_none(data: bytes):
    assert jpeg_frame(data) is None


def test_a_frame_without_pixels_counts_as_none():
    data = jpeg()
    at = dict(jpeg_segments(data))[0xC0]
    assert jpeg_frame(data[: at + 3] + b"\0\0" + data[at + 5 :]) is None
