"""Decompression bombs: refused before anybody takes memory for them, and nothing else is."""

from __future__ import annotations

import base64
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from helpers_odd_images import jpeg, saved, with_size
from PIL import Image

from patchmill.loaders.decode.decoder import MAX_PIXELS, MOST_PIXELS, BadImage, decode
from patchmill.loaders.decode.jpeg_header import jpeg_frame, lies_about_size, plain_jpeg

# 1500 x 1500 pixels of one colour by an arithmetic coder: libjpeg-turbo with TJ_ARITHMETIC=1.
ARITHMETIC = (
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00;&K2L=TQ2L}fU2?z=d6b%du3k(?&6Au&}8Xq1V8XO!TBrYc)A}k{u94I#_"
    "EHE)NG&CP4IXyTsJT5adGXL8ELjeg12@DGi7!3^=G9erxGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqU"
    "GBPqUGBPqUGBPqUGBW?k01*fU+y&eN0U`hb5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#0B-*Pek}jl"
)


def bomb(side: int, **options: object) -> bytes:
    """A few hundred bytes whose header announces `side` x `side` pixels."""
    return with_size(jpeg(1, 8, 8, **options), side, side)


def test_a_small_jpeg_cannot_hold_many_pixels() -> None:
    for options in ({}, {"subsampling": 0}, {"mode": "L"}, {"mode": "CMYK"}):
        data = bomb(8000, **options)
        assert len(data) < 2000
        with pytest.raises(BadImage, match=rf"its {len(data)} bytes are too few for 8000 x 8000"):
            decode(data)
        assert plain_jpeg(data) is None


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_no_constant_jpeg_is_refused(mode: str, progressive: bool) -> None:
    """Nothing takes fewer bits than a single colour: with optimised tables, one bit per code."""
    for subsampling in (0, 1, 2):
        for interval in (0, 1, 7):
            image = Image.new(mode, (1999, 1001))
            data = saved(
                image, "JPEG", optimize=True, progressive=progressive, subsampling=subsampling,
                quality=1, restart_marker_blocks=interval,
            )  # fmt: skip
            frame = jpeg_frame(data)
            assert frame is not None and not lies_about_size(data, frame)
            assert decode(data).shape == (1001, 1999, 3)


def test_arithmetic_coding_is_never_too_small() -> None:
    data = base64.b85decode(ARITHMETIC)
    assert len(data) < 250
    assert decode(data).shape == (1500, 1500, 3)


def test_sampling_factors_count() -> None:
    data = bomb(6400, subsampling=0)
    at = data.find(b"\xff\xc0")
    for factors, most in ((0x11, 1), (0x22, 4), (0x41, 4), (0x44, 16)):
        changed = data[: at + 11] + bytes([factors]) + data[at + 12 :]
        frame = jpeg_frame(changed)
        assert frame is not None
        least = 2 * (6400 // 8) ** 2 // most // 8  # bytes
        enough = changed + bytes(least - len(changed))
        assert lies_about_size(enough[:-1], frame) and not lies_about_size(enough, frame)


def png_header(side: int) -> bytes:
    data = bytearray(saved(Image.new("RGB", (8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_the_limit_is_a_setting() -> None:
    assert MAX_PIXELS == 8192 * 8192 < MOST_PIXELS
    for data in (png_header(8193), bomb(8193), b"P6 8193 8193 255\n"):
        with pytest.raises(
            BadImage, match=r"8193 x 8193 pixels .* 67108864 that max_pixels allows"
        ):
            decode(data + bytes(3 * 8193**2 if data[:2] == b"P6" else 0))
    image = saved(Image.new("RGB", (10, 10)), "PNG")
    assert decode(image, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(BadImage, match="10 x 10 pixels are more than the 99 that max_pixels allow"):
        decode(image, max_pixels=99)
    with pytest.raises(BadImage, match="pixels"):
        decode(png_header(20_000), max_pixels=MOST_PIXELS)


MEASURE = """
import resource, sys
from pathlib import Path
from patchmill.loaders.decode.decoder import BadImage, decode
from PIL import Image
Image.init()
for name in sys.argv[1:]:
    data = Path(name).read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        decode(data)
        said = "decoded"
    except BadImage as error:
        said = "refused"
    print(said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10)
"""


def test_memory_taken_by_bombs(tmp_path: Path) -> None:
    """Peak memory of decoding in MiB, in a separate process."""
    files = {
        "jpeg": bomb(13_377),
        "below": bomb(8192),
        "progressive": bomb(8192, progressive=True),
        "png": png_header(8192),
        "large": saved(Image.new("RGB", (4096, 4096)), "PNG"),
    }
    paths = []
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        paths.append(str(tmp_path / name))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, timeout=120
    )
    found = [line.split() for line in done.stdout.splitlines()]
    assert [said for said, _ in found] == ["refused"] * 4 + ["decoded"], done.stderr
    costs = dict(zip(files, (int(cost) for _, cost in found), strict=True))
    assert max(costs["jpeg"], costs["below"], costs["progressive"]) < 8, costs
    assert costs["png"] < 300, costs  # PIL's own memory for what the header says
    assert costs["large"] < 200, costs  # 3 + 4 bytes a pixel, and a band
