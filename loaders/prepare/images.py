"""Convert one encoded image for the output: check it, and shrink or re-encode it if needed.

Checking reads the header and the end marker. An image whose header or end is unusual is decoded;
if that fails, the image is bad.
"""

from __future__ import annotations

import struct
import threading
from typing import NamedTuple

import numpy as np

from patchmill.loaders.common.shortage import shortage
from patchmill.loaders.decode.bad_image import check_pixel_count
from patchmill.loaders.decode.decoder import MAX_PIXELS, BadImage, Decoder
from patchmill.loaders.decode.jpeg_header import FRAME_MARKERS, jpeg_segments, parse_frame
from patchmill.loaders.prepare.options import BETON, Options
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.beton.writer import PAGE_SIZE

RAW_QUALITY = 95  # JPEG quality for raw pixels that do not fit into a page of a .beton

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_OTHER_MAGIC = {b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}
_APP1, _EXIF, _ORIENTATION = 0xE1, b"Exif\0\0", 0x0112
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_BASIC_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: libjpeg-turbo decodes them
_TAIL_BYTES = 32  # a JPEG's end marker must lie in these: some files are padded
_MIN_SCALE = 2  # JPEGs are decoded to at least this multiple of the target size, then resized
_MAX_SIDE = 65_535  # of an image in a .beton

_threads = threading.local()


def read(source: Source, id: int) -> bytes | OSError:
    """Encoded bytes of a sample, or the error that makes it a bad sample."""
    try:
        return source.read(id)
    except OSError as error:
        if shortage(error):  # not the sample's fault
            raise
        return error


class ImageInfo(NamedTuple):
    """Properties read from a file's header and end."""

    extension: str  # of a file name, without the dot
    size: tuple[int, int] | None  # height and width in pixels, if cheap to read
    traits: tuple[str, ...]  # unusual properties, for the report
    intact: bool  # shows no damage without decoding


class Image(NamedTuple):
    """An image as it will be stored."""

    data: bytes
    extension: str
    traits: tuple[str, ...]
    change: str = ""  # for the report


def convert(data: bytes, options: Options) -> Image:
    """Convert for the output's format and size; raise BadImage if it cannot be decoded."""
    info, most = read_info(data), options.max_pixels
    if info.size is not None:
        check_pixel_count(*info.size, most)
    if options.max_side is not None:
        smaller = shrink_to(data, info, options.max_side, most)
        if smaller is not None:
            encoded = encode(smaller, options.quality)
            return Image(encoded, "jpg", info.traits, "made smaller")
    elif options.verify or not info.intact:
        decode_rgb(data, most)
    kept = Image(data, info.extension, info.traits)
    return _for_beton(kept, most) if options.format == BETON else kept


def read_info(data: bytes) -> ImageInfo:
    if data.startswith(_JPEG):
        return _read_jpeg_info(data)
    if data.startswith(_PNG) and len(data) > 33:
        width, height, depth = struct.unpack_from(">IIB", data, 16)
        traits = ("png", "16 bit") if depth == 16 else ("png",)
        return ImageInfo("png", (height, width), traits, data[-8:-4] == b"IEND")
    kind = next((kind for magic, kind in _OTHER_MAGIC.items() if data.startswith(magic)), None)
    if kind is None and data[:1] == b"P" and data[1:2] in b"123456":
        kind = "ppm"
    # Unknown types get a JPEG's extension; readers detect the type from the bytes.
    return ImageInfo(kind or "jpg", None, (kind or "other",), False)


def shrink_to(
    data: bytes, info: ImageInfo, side: int, max_pixels: int = MAX_PIXELS
) -> np.ndarray | None:
    """Decode and resize to a longer side of `side`; None if the image is no larger than that.

    Returns uint8 [height, width, 3], or 1 channel for a grey JPEG.
    """
    if info.size is None or info.extension != "jpg" or "cmyk" in info.traits:
        pixels = decode_rgb(data, max_pixels)
        size = pixels.shape[0], pixels.shape[1]
    elif max(info.size) <= side:
        decode_rgb(data, max_pixels)
        return None
    else:
        size = info.size
        wanted = fit_size(size, side)
        pixels = _decode_reduced(data, size, wanted, "grey" in info.traits, max_pixels)
    return None if max(size) <= side else resize(pixels, fit_size(size, side))


def encode(pixels: np.ndarray, quality: int) -> bytes:
    """Encode as JPEG, with 4:2:0 chroma up to quality 94 and 4:4:4 above."""
    import simplejpeg

    if pixels.shape[2] == 1:
        return simplejpeg.encode_jpeg(pixels, quality, "GRAY", "Gray")
    return simplejpeg.encode_jpeg(pixels, quality, "RGB", "420" if quality < 95 else "444")


def _read_jpeg_info(data: bytes) -> ImageInfo:
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
            intact = depth == 8 and marker in _BASIC_FRAMES and components in (1, 3, 4)
            intact = intact and bool(height and width) and b"\xff\xd9" in data[-_TAIL_BYTES:]
            size = (height, width) if height and width else None
            return ImageInfo("jpg", size, tuple(traits), intact)
    return ImageInfo("jpg", None, tuple(traits), False)


def _orientation(segment: bytes) -> int:
    """EXIF orientation, 1 to 8; 1 if there is no valid one."""
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


def decode_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode into this thread's buffer: valid until the thread's next call."""
    if getattr(_threads, "max_pixels", None) != max_pixels:
        _threads.decode, _threads.max_pixels = Decoder(max_pixels), max_pixels
    return _threads.decode(data)


def _decode_reduced(
    data: bytes, size: tuple[int, int], wanted: tuple[int, int], grey: bool, max_pixels: int
) -> np.ndarray:
    """Decode a JPEG at its smallest DCT scale of at least `_MIN_SCALE` times `wanted`."""
    import simplejpeg

    check_pixel_count(*size, max_pixels)
    height, width = _MIN_SCALE * wanted[0], _MIN_SCALE * wanted[1]
    try:
        colours = "GRAY" if grey else "RGB"
        return simplejpeg.decode_jpeg(
            data, colours, min_height=height, min_width=width, strict=True
        )
    except (ValueError, MemoryError):
        return decode_rgb(data, max_pixels)


def fit_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Scale a size to a longer side of `side` pixels."""
    longest = max(size)
    height, width = (max(1, (2 * n * side + longest) // (2 * longest)) for n in size)
    return height, width


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize with an antialiased bicubic filter."""
    from PIL import Image as pil

    flat = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    resized = pil.fromarray(flat).resize((size[1], size[0]), pil.Resampling.BICUBIC)
    return np.asarray(resized).reshape(*size, pixels.shape[2])


def _for_beton(image: Image, max_pixels: int) -> Image:
    """Re-encode for a .beton: JPEGs of 1 or 3 components, or raw pixels, that fit a page."""
    if image.extension != "jpg" or {"cmyk", "other"} & set(image.traits):
        pixels = decode_rgb(image.data, max_pixels)
        height, width = pixels.shape[:2]
        if max(height, width) > _MAX_SIDE:
            raise BadImage(f"{width} x {height} pixels are more than a .beton can hold")
        if pixels.nbytes <= PAGE_SIZE:
            raw = b"P6 %d %d 255\n" % (width, height) + pixels.tobytes()
            return Image(raw, "ppm", image.traits, "stored as raw pixels")
        change = f"stored as JPEG of quality {RAW_QUALITY}"
        image = Image(encode(pixels, RAW_QUALITY), "jpg", image.traits, change)
    if len(image.data) > PAGE_SIZE:
        raise BadImage(
            f"its {len(image.data)} bytes do not fit into a page of a .beton ({PAGE_SIZE}): "
            "make shards, or use --max-side"
        )
    return image
