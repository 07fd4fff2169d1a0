"""Image infos compared with PIL's, and conversion of single images."""

import io

import helpers_prepare as making
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchmill.loaders.decode.decoder import BadImage
from patchmill.loaders.prepare import images
from patchmill.loaders.prepare.options import Options

RGB = Image.fromarray(making.pixels(1, 30, 50))
DEEP = Image.fromarray(np.arange(1500, dtype=np.uint16).reshape(30, 50))
KEEP, VERIFY = Options("shards"), Options("shards", verify=True)


def rotated(orientation: int, order: str = "") -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", orientation
    return making.by_pil(RGB, "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("data", "extension", "traits", "intact"),
    [
        (making.by_pil(RGB, "JPEG"), "jpg", (), True),
        (making.by_pil(RGB, "JPEG", progressive=True), "jpg", ("progressive",), True),
        (making.by_pil(RGB.convert("L"), "JPEG"), "jpg", ("grey",), True),
        (making.by_pil(RGB.convert("CMYK"), "JPEG"), "jpg", ("cmyk",), True),
        (rotated(6), "jpg", ("exif-rotated",), True),
        (rotated(1), "jpg", (), True),
        (rotated(99), "jpg", (), True),
        (making.by_pil(RGB, "JPEG") + bytes(9), "jpg", (), True),
        (making.by_pil(RGB, "JPEG")[:-2], "jpg", (), False),
        (making.by_pil(RGB, "PNG"), "png", ("png",), True),
        (making.by_pil(DEEP, "PNG"), "png", ("png", "16 bit"), True),
        (making.by_pil(RGB, "PNG")[:-20], "png", ("png",), False),
        (making.by_pil(RGB, "WEBP"), "webp", ("webp",), False),
        (making.by_pil(RGB, "TIFF"), "tif", ("tif",), False),
        (b"", "jpg", ("other",), False),
        (b"nonsense", "jpg", ("other",), False),
    ],
)
def test_image_info(data: bytes, extension: str, traits: tuple[str, ...], intact: bool):
    info = images.read_info(data)
    assert (info.extension, info.traits, info.intact) == (extension, traits, intact)
    if extension in ("jpg", "png") and data[:8] and "other" not in traits:
        assert info.size == (30, 50)


@given(st.binary(max_size=200))
def test_any_bytes_may_follow_an_exif_marker(junk: bytes):
    whole = making.by_pil(RGB, "JPEG")
    segment = b"Exif\0\0" + junk
    length = (len(segment) + 2).to_bytes(2, "big")
    info = images.read_info(whole[:2] + b"\xff\xe1" + length + segment + whole[2:])
    assert info.size == (30, 50)


@given(
    st.binary(max_size=100), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"P6"])
)
def test_random_bytes_raise_bad_image_only(junk: bytes, start: bytes):
    with pytest.raises(BadImage):
        images.convert(start + junk, VERIFY)


@given(st.integers(0, 400))
def test_cut_images_are_bad_wherever_they_are_cut(missing: int):
    data = making.jpeg(3)
    cut = data[: len(data) - 3 - missing]
    with pytest.raises(BadImage):
        images.convert(cut, KEEP)


def test_kept_images_have_the_same_bytes():
    for data in (rotated(6), making.by_pil(RGB, "WEBP"), making.by_pil(DEEP, "PNG")):
        for options in (KEEP, VERIFY, Options("shards", max_side=50)):
            prepared = images.convert(data, options)
            assert prepared.data is data
            assert not prepared.change


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 700))
def test_sizes_keep_their_ratio(height: int, width: int, side: int):
    fitted = images.fit_size((height, width), side)
    assert max(fitted) == side
    assert min(fitted) >= 1
    exact = min(height, width) * side / max(height, width)
    assert abs(min(fitted) - exact) <= max(0.5, 1 - exact)


@pytest.mark.parametrize("shape", [(700, 1000), (1900, 300), (256, 257)])
def test_a_shrunk_image_shows_the_same_content(shape: tuple[int, int]):
    """Including JPEGs that are decoded at a fraction of their size."""
    prepared = images.convert(making.jpeg(5, *shape), Options("shards", max_side=100, quality=95))
    made = Image.open(io.BytesIO(prepared.data))
    assert max(made.size) == 100
    original = Image.fromarray(making.pixels(5, *shape))
    wanted = original.resize(made.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(made).astype(int) - np.asarray(wanted)).mean() < 1.5
