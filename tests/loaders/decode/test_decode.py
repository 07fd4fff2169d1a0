"""Decoding: PIL's pixels for unusual files, BadImage and nothing else for bad ones."""

from __future__ import annotations

import io
import struct
import sys
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchmill.loaders.decode import decoder as decoders
from patchmill.loaders.decode.decoder import MAX_PIXELS, BadImage, Decoder, decode

HEIGHT, WIDTH = 67, 93


def picture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    return np.clip(np.stack([2 * x, 3 * y, x + y], -1) + noise, 0, 255).astype(np.uint8)


def stored(mode: str = "RGB", kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(file, kind, **options)
    return file.getvalue()


def by_pil(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def rotated_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def with_second_image() -> bytes:
    file = io.BytesIO()
    first, second = Image.fromarray(picture()), Image.fromarray(255 - picture())
    first.save(file, "MPO", save_all=True, append_images=[second])
    return file.getvalue()


ODD = {
    "baseline": stored(quality=95),
    "4:4:4": stored(subsampling=0),
    "4:2:2": stored(subsampling=1),
    "4:2:0": stored(subsampling=2),
    "progressive": stored(progressive=True),
    "progressive 4:2:0": stored(progressive=True, subsampling=2, quality=40),
    "grey": stored("L"),
    "CMYK": stored("CMYK"),
    "stored as RGB": stored(keep_rgb=True),
    "restart markers": stored(restart_marker_blocks=2),
    "EXIF rotation": stored(exif=rotated_exif()),
    "long comment": stored(comment=b"x" * 60_000),
    "trailing bytes": stored() + b"more" * 100,
    "two images": with_second_image(),
    "PNG": stored(kind="PNG"),
    "PNG with alpha": stored("RGBA", "PNG"),
    "PNG grey with alpha": stored("LA", "PNG"),
    "PNG palette": stored("P", "PNG"),
    "PNG one bit": stored("1", "PNG"),
    "WebP": stored(kind="WEBP"),
    "WebP lossless alpha": stored("RGBA", "WEBP", lossless=True),
    "GIF": stored("P", "GIF"),
    "BMP": stored(kind="BMP"),
    "TIFF": stored(kind="TIFF"),
    "TIFF CMYK": stored("CMYK", "TIFF"),
    "PPM": stored(kind="PPM"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_decode_as_pil_does(name: str) -> None:
    data = ODD[name]
    for image in (
        decode(data),
        decode(data, lambda size: np.empty(size, np.uint8)),
        Decoder()(data),
    ):
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous and image.flags.writeable
        np.testing.assert_array_equal(image, by_pil(data))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    quality=st.integers(1, 100),
    subsampling=st.integers(0, 2),
    progressive=st.booleans(),
)
def test_jpegs_of_all_shapes_decode_as_pil_does(
    height: int, width: int, quality: int, subsampling: int, progressive: bool
) -> None:
    file = io.BytesIO()
    Image.fromarray(picture(height, width)).save(
        file, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive
    )
    np.testing.assert_array_equal(decode(file.getvalue()), by_pil(file.getvalue()))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_where_pil_clips(kind: str) -> None:
    grey = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, kind)
    image = decode(file.getvalue())
    assert image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(image[:, :, 1], grey >> 8)


@pytest.mark.parametrize(
    ("dtype", "high", "complaint"),
    [
        (np.float32, 255, None),
        (np.int32, 255, None),
        (np.float32, 0, None),
        (
            np.float32,
            1,
            "its 32-bit pixels range from 0 to 1, but are read as 0 to 255",
        ),
        (np.float32, 4000, "range from 0 to 4000"),
        (np.int32, 65535, "range from 0 to 65535"),
    ],
)
def test_32_bit_grey_is_refused_where_pil_clips(
    dtype: type, high: int, complaint: str | None
) -> None:
    grey = np.linspace(0, high, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(dtype)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "TIFF")
    if complaint is None:
        np.testing.assert_array_equal(decode(file.getvalue()), by_pil(file.getvalue()))
    else:
        with pytest.raises(BadImage, match=complaint):
            decode(file.getvalue())


def test_16_bit_netpbm() -> None:
    grey = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(">u2")
    data = b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + grey.tobytes()
    np.testing.assert_array_equal(decode(data)[:, :, 0], grey >> 8)


# --------------------------------------------------------------------------------------- bad files


def png_of_size(width: int, height: int) -> bytes:
    data = bytearray(stored(kind="PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(stored())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


BAD = {
    "empty": (b"", "empty"),
    "garbage": (b"no image at all" * 20, "known type"),
    "JPEG marker only": (b"\xff\xd8\xff", "known type"),
    "header only": (stored()[:200], "Truncated"),
    "half a JPEG": (stored()[: len(stored()) // 2], "truncated"),
    "last two bytes cut": (stored()[:-2], "truncated"),
    "half a progressive JPEG": (stored(progressive=True)[:1500], "truncated"),
    "half a PNG": (stored(kind="PNG")[:1000], "truncated"),
    "half a WebP": (stored(kind="WEBP")[:100], "known type|decode"),
    "JPEG bomb": (jpeg_of_size(65500, 65500), "pixels"),
    "PNG bomb": (png_of_size(65500, 65500), "pixels"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", "known type"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_of_bad_files_say_why(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(BadImage, match=reason) as caught:
        decode(data)
    assert str(caught.value) and "\n" not in str(caught.value)


def test_a_large_image_below_the_limit_is_not_a_bomb() -> None:
    assert 8000 * 8000 < MAX_PIXELS

    def allocate(size: int) -> np.ndarray:
        raise LookupError(size)

    with pytest.raises(LookupError, match="192000000"):
        decode(jpeg_of_size(8000, 8000) + bytes(250_000), allocate)


CORRUPTIBLE = [
    ODD["4:2:0"],
    ODD["progressive"],
    ODD["CMYK"],
    ODD["PNG palette"],
    ODD["WebP"],
    ODD["GIF"],
]


@settings(max_examples=300, deadline=None)
@given(
    data=st.sampled_from(CORRUPTIBLE),
    cut=st.integers(0, 4000),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
)
def test_corruption_is_an_image_or_a_bad_image(
    data: bytes, cut: int, changes: list[tuple[int, int]]
) -> None:
    corrupt = bytearray(data[: len(data) - cut] if cut % 3 == 0 else data)
    for at, value in changes:
        if at < len(corrupt):
            corrupt[at] = value
    try:
        image = decode(bytes(corrupt), lambda size: np.empty(min(size, 1 << 16), np.uint8))
    except BadImage as error:
        assert str(error)
    else:
        assert image.dtype == np.uint8 and image.flags.c_contiguous
        assert image.ndim == 3 and image.shape[2] == 3 and image.size


# ------------------------------------------------------------------------------- memory and threads


def test_memory_that_is_allocated_is_used() -> None:
    memory: list[np.ndarray] = []

    def allocate(size: int) -> np.ndarray:
        memory.append(np.empty(size, np.uint8))
        return memory[-1]

    image = decode(ODD["baseline"], allocate)
    assert [part.size for part in memory] == [HEIGHT * WIDTH * 3]
    assert np.shares_memory(image, memory[0])
    np.testing.assert_array_equal(decode(ODD["baseline"], lambda size: None), image)
    for name in ("PNG", "CMYK"):
        decode(ODD[name], allocate)
    assert len(memory) == 1


@pytest.mark.parametrize("use", ["decode", "Decoder", "decode_into"])
def test_a_header_is_parsed_once(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from patchmill.loaders.pipelines.gpu.arena import BLOCK_BYTES, Arena, decode_into
    from patchmill.loaders.pipelines.memory import BlockPool

    parsed, original = list[bytes](), decoders.jpeg_frame
    monkeypatch.setattr(decoders, "jpeg_frame", lambda data: parsed.append(data) or original(data))
    if use == "decode_into":
        decode_into(Arena(BlockPool(BLOCK_BYTES, torch.uint8)), ODD["baseline"])
    else:
        (decode if use == "decode" else Decoder())(ODD["baseline"])
    assert parsed == [ODD["baseline"]]


def test_a_decoder_keeps_its_memory_and_grows_it() -> None:
    def large(side: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(file, "JPEG")
        return file.getvalue()

    decoder = Decoder()
    first = decoder(ODD["baseline"])
    assert np.shares_memory(first, decoder(ODD["4:2:0"]))
    assert decoder(large(1500)).shape == (1500, 1500, 3)
    big = decoder(large(1500))
    assert np.shares_memory(big, decoder(ODD["baseline"]))


def test_a_decoder_keeps_several_images() -> None:
    """Decode any number of images: those that do not fit get their own memory."""
    decoder, names = Decoder(), ["baseline", "4:2:0", "PNG", "progressive"]
    decoder._memory = np.empty(2 * HEIGHT * WIDTH * 3, np.uint8)
    for _ in range(2):
        decoder.reuse()
        images = [decoder.one_more(ODD[name]) for name in names]
        for name, image in zip(names, images, strict=True):
            np.testing.assert_array_equal(image, decode(ODD[name]))
    assert np.shares_memory(images[-1], decoder._memory)  # which has grown


def test_decoding_lets_other_threads_run() -> None:
    file = io.BytesIO()
    Image.fromarray(np.tile(picture(), (30, 30, 1))).save(file, "JPEG")
    data, interval = file.getvalue(), sys.getswitchinterval()
    overlapped = False
    sys.setswitchinterval(60)  # from here on only a released lock lets this thread go on
    try:
        for _ in range(20):
            begun, ended = threading.Event(), []

            def work(begun: threading.Event = begun, ended: list[bool] = ended) -> None:
                begun.set()
                decode(data)
                ended.append(True)

            thread = threading.Thread(target=work)
            thread.start()
            begun.wait()
            overlapped |= not ended
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert overlapped
