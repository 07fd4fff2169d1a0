"""One encoded image on its way to the output: looked at, checked, and made smaller if need be.

Looking reads the header and the end marker. An image whose header or end is in any way unusual is
decoded; what then cannot be decoded is bad.
"""

from __future__ import annotations

import struct
import threading
from typing import NamedTuple

import numpy as np

from patchmill.loaders.decode.decoder import MAX_PIXELS, BadImage, Decoder
from patchmill.loaders.decode.jpeg_header import FRAME_MARKERS, jpeg_segments, parse_frame
from patchmill.loaders.prepare.options import BETON, Options
from patchmill.loaders.sources.beton.writer import PAGE_SIZE

RAW_QUALITY = 95  # of a JPEG that stands for pixels which do not fit into a beton's page

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_OTHERS = {b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}
_APP1, _EXIF, _ORIENTATION = 0xE1, b"Exif\0\0", 0x0112
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_USUAL = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what libjpeg-turbo decodes
_TAIL = 32  # bytes in which a JPEG's end marker must lie, for files with a little padding
_GAP = 2  # JPEGs are decoded to at least this many times the wanted side, then resized
_LONGEST_SIDE = 65_535  # in a beton

_threads = threading.local()


class Look(NamedTuple):
    """What header and end of a file say."""

    ending: str  # for a file name
    size: tuple[int, int] | None  # height and width in pixels, where cheap to know
    traits: tuple[str, ...]  # what is odd about it, for the report
    sound: bool  # as whole as can be told without decoding


class Image(NamedTuple):
    """What is to be stored."""

    data: bytes
    ending: str
    traits: tuple[str, ...]
    change: str = ""  # what was done to it, for the report


def prepare(data: bytes, options: Options) -> Image:
    """The image as the output wants it; BadImage if it is none."""
    seen = look(data)
    if options.max_side is not None:
        smaller = shrink(data, seen, options.max_side)
        if smaller is not None:
            encoded = encode(smaller, options.quality)
            return Image(encoded, "jpg", seen.traits, "made smaller")
    elif options.verify or not seen.sound:
        decoded(data)
    kept = Image(data, seen.ending, seen.traits)
    return _for_beton(kept) if options.format == BETON else kept


def look(data: bytes) -> Look:
    if data.startswith(_JPEG):
        return _look_at_jpeg(data)
    if data.startswith(_PNG) and len(data) > 33:
        width, height, depth = struct.unpack_from(">IIB", data, 16)
        traits = ("png", "16 bit") if depth == 16 else ("png",)
        return Look("png", (height, width), traits, data[-8:-4] == b"IEND")
    kind = next((kind for magic, kind in _OTHERS.items() if data.startswith(magic)), None)
    if kind is None and data[:1] == b"P" and data[1:2] in b"123456":
        kind = "ppm"
    # What has no usual name for its type is called a JPEG; readers go by the bytes.
    return Look(kind or "jpg", None, (kind or "other",), False)


def shrink(data: bytes, seen: Look, side: int) -> np.ndarray | None:
    """uint8 [height, width, 3] (or 1, of a grey JPEG) no longer than `side`; None if it is none."""
    if seen.size is None or seen.ending != "jpg" or "cmyk" in seen.traits:
        pixels = decoded(data)
        size = pixels.shape[0], pixels.shape[1]
    elif max(seen.size) <= side:
        decoded(data)
        return None
    else:
        size = seen.size
        pixels = _decode_reduced(data, size, fit(size, side), "grey" in seen.traits)
    return None if max(size) <= side else resize(pixels, fit(size, side))


def encode(pixels: np.ndarray, quality: int) -> bytes:
    """As JPEG, chroma at half the resolution up to quality 94."""
    import simplejpeg

    if pixels.shape[2] == 1:
        return simplejpeg.encode_jpeg(pixels, quality, "GRAY", "Gray")
    return simplejpeg.encode_jpeg(pixels, quality, "RGB", "420" if quality < 95 else "444")


def _look_at_jpeg(data: bytes) -> Look:
    traits = []
    for marker, at in jpeg_segments(data):
        if marker == _APP1 and _orientation(data[at + 2 : at + (data[at] << 8 | data[at + 1])]) > 1:
            traits.append("exif-rotated")
        if marker in FRAME_MARKERS:
            height, width, components, depth, _ = parse_frame(data, marker, at)
            if components in (1, 4):
                traits.append("grey" if components == 1 else "cmyk")
            if marker in _PROGRESSIVE:
                traits.append("progressive")
            sound = depth == 8 and marker in _USUAL and components in (1, 3, 4)
            sound = sound and bool(height and width) and b"\xff\xd9" in data[-_TAIL:]
            return Look("jpg", (height, width) if height and width else None, tuple(traits), sound)
    return Look("jpg", None, tuple(traits), False)


def _orientation(segment: bytes) -> int:
    """1 to 8 as EXIF has it; 1 where it says nothing sensible."""
    if not segment.startswith(_EXIF):
        return 1
    tiff = segment[len(_EXIF) :]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2], "")
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for i in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * i)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def decoded(data: bytes) -> np.ndarray:
    """RGB in this thread's memory: valid until its next call."""
    if not hasattr(_threads, "decode"):
        _threads.decode = Decoder()
    return _threads.decode(data)


def _decode_reduced(
    data: bytes, size: tuple[int, int], wanted: tuple[int, int], grey: bool
) -> np.ndarray:
    """At the least of the sizes that come cheaply from a JPEG's coefficients."""
    import simplejpeg

    if size[0] * size[1] > MAX_PIXELS:
        return decoded(data)  # which refuses it
    height, width = _GAP * wanted[0], _GAP * wanted[1]
    try:
        colours = "GRAY" if grey else "RGB"
        return simplejpeg.decode_jpeg(
            data, colours, min_height=height, min_width=width, strict=True
        )
    except (ValueError, MemoryError):
        return decoded(data)


def fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size with a longer side of `side` pixels."""
    longest = max(size)
    height, width = (max(1, (2 * n * side + longest) // (2 * longest)) for n in size)
    return height, width


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Antialiased bicubic."""
    from PIL import Image as pil

    flat = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    resized = pil.fromarray(flat).resize((size[1], size[0]), pil.Resampling.BICUBIC)
    return np.asarray(resized).reshape(*size, pixels.shape[2])


def _for_beton(image: Image) -> Image:
    """A beton holds JPEGs of one or three components, and raw pixels; a sample fits its page."""
    if image.ending != "jpg" or {"cmyk", "other"} & set(image.traits):
        pixels = decoded(image.data)
        height, width = pixels.shape[:2]
        if max(height, width) > _LONGEST_SIDE:
            raise BadImage(f"{width} x {height} pixels are more than a .beton can hold")
        if pixels.nbytes <= PAGE_SIZE:
            raw = b"P6 %d %d 255\n" % (width, height) + pixels.tobytes()
            return Image(raw, "ppm", image.traits, "stored as raw pixels")
        change = f"stored as JPEG of quality {RAW_QUALITY}"
        image = Image(encode(pixels, RAW_QUALITY), "jpg", image.traits, change)
    if len(image.data) > PAGE_SIZE:
        raise BadImage(
            f"its {len(image.data)} bytes do not fit a page of a .beton ({PAGE_SIZE}): "
            "make shards, or use --max-side"
        )
    return image
