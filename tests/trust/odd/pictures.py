"""Odd images by name: two hundred files as found in data sets, and worse."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from helpers_odd_images import jpeg, picture, rotated, saved, with_size
from PIL import Image, ImageCms

from trust.odd import pngs

Named = Iterator[tuple[str, bytes]]


def all_pictures() -> dict[str, bytes]:
    """Every odd image; names of images that lie about their size start with `lie`."""
    kinds = (
        jpeg_forms, jpeg_sizes, jpeg_segments, jpeg_scans, jpeg_frames, png_files, gif_files,
        webp_files, tiff_files, other_files, no_images,
    )  # fmt: skip
    found: dict[str, bytes] = {}
    for kind in kinds:
        for name, data in kind():
            assert name not in found, name
            found[name] = data
    return found


# ----------------------------------------------------------------------------------------- JPEG


def jpeg_forms() -> Named:
    for subsampling in range(3):
        for progressive in (False, True):
            for quality in (2, 60, 100):
                options: dict[str, Any] = {
                    "subsampling": subsampling, "progressive": progressive, "quality": quality,
                }  # fmt: skip
                yield f"jpeg {subsampling} {progressive} {quality}", jpeg(quality, **options)
    for mode in ("L", "CMYK"):
        for progressive in (False, True):
            for blocks in (0, 3):
                yield (
                    f"jpeg {mode} {progressive} {blocks}",
                    jpeg(7, mode=mode, progressive=progressive, restart_marker_blocks=blocks),
                )
    yield "jpeg stored as RGB", jpeg(8, keep_rgb=True)
    for transform in (0, 1, 2, 7):
        cmyk = jpeg(9, mode="CMYK")
        at = cmyk.find(b"Adobe") + 11
        yield f"jpeg Adobe CMYK {transform}", cmyk[:at] + bytes([transform]) + cmyk[at + 1 :]
        adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + bytes([transform])
        whole = jpeg(10)
        yield f"jpeg Adobe {transform}", whole[:2] + adobe + whole[2:]
        yield f"jpeg Adobe behind JFIF {transform}", whole[:20] + adobe + whole[20:]
    for optimize in (False, True):
        yield (
            f"jpeg of one colour {optimize}",
            saved(Image.new("RGB", (400, 300), "navy"), "JPEG", optimize=optimize),
        )


def jpeg_sizes() -> Named:
    for side in (1, 7, 8, 9, 15, 16, 17):
        yield f"jpeg side {side}", jpeg(side, side, side + 1)
        yield f"jpeg side {side} 4:2:0", jpeg(side, side + 1, side, subsampling=2)
    yield "jpeg 65500 wide", saved(Image.new("L", (65_500, 1), 9), "JPEG")
    yield "jpeg 65500 high", saved(Image.new("L", (1, 65_500), 9), "JPEG")
    whole = jpeg(1)
    for height, width in ((0, 83), (57, 0), (0, 0), (90, 83), (57, 120), (33, 83), (57, 40)):
        yield f"jpeg says {height} x {width}", with_size(whole, height, width)
    for side in (8000, 9000, 13_377, 40_000, 65_535):
        yield f"lie of {side}", with_size(whole, side, side)
        yield f"lie of {side}, grey", with_size(jpeg(2, mode="L"), side, side)
    progressive = jpeg(3, progressive=True)
    at = progressive.find(b"\xff\xc2") + 5
    yield "lie, progressive", progressive[:at] + b"\x20\x00\x20\x00" + progressive[at + 4 :]


def jpeg_segments() -> Named:
    whole = jpeg(11)
    for orientation in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65_535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"jpeg orientation {orientation}", jpeg(orientation % 50, exif=exif)
    good = rotated().tobytes()
    for name, exif in {
        "cut": good[:12],
        "huge": good + bytes(60_000),
        "empty": b"Exif\0\0",
        "no order": b"Exif\0\0XX*\0",
        "loop": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
        "far": b"Exif\0\0II*\0\xff\xff\xff\xff",
        "many": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(90),
    }.items():
        segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        yield f"jpeg EXIF {name}", whole[:2] + segment + whole[2:]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield "jpeg ICC", jpeg(12, icc_profile=profile)
    yield "jpeg ICC of noise", jpeg(13, icc_profile=np.random.default_rng(1).bytes(3000))
    yield "jpeg ICC in pieces", jpeg(14, icc_profile=profile * 300)
    yield "jpeg comment", jpeg(15, comment=b"\x1b[2J\0" * 9000)
    yield "jpeg fill bytes", whole[:2] + b"\xff" * 9 + whole[2:]
    yield "jpeg bytes before", b"\0\0" + whole
    yield "jpeg without JFIF", whole[:2] + whole[20:]
    yield "jpeg segment of length 0", whole[:2] + b"\xff\xe5\0\0" + whole[2:]
    yield "jpeg segment beyond the end", whole[:2] + b"\xff\xe5\xff\xff" + whole[2:]
    yield "jpeg two starts", whole[:2] + whole
    yield "jpeg two images", whole + jpeg(16)
    yield "jpeg zeros behind", whole + bytes(5000)
    for marker, name in ((b"\xff\xdb", "tables"), (b"\xff\xc4", "codes"), (b"\xff\xda", "scan")):
        at = whole.find(marker)
        size = 2 + int.from_bytes(whole[at + 2 : at + 4], "big")
        yield f"jpeg without its first {name}", whole[:at] + whole[at + size :]
        yield f"jpeg with its first {name} twice", whole[: at + size] + whole[at:]
    stream = io.BytesIO()
    picture(17, 40, 50).save(stream, "MPO", save_all=True, append_images=[picture(18, 40, 50)])
    yield "jpeg MPO", stream.getvalue()


def jpeg_scans() -> Named:
    whole, progressive = jpeg(20, 90, 120), jpeg(21, 90, 120, progressive=True)
    scans = [at for at in range(len(progressive)) if progressive[at : at + 2] == b"\xff\xda"]
    for number, at in enumerate(scans):
        yield f"jpeg cut before scan {number}", progressive[:at] + b"\xff\xd9"
        yield f"jpeg cut in scan {number}", progressive[: at + 40] + b"\xff\xd9"
        yield f"jpeg cut in scan {number}, no end", progressive[: at + 60]
    for share in (2, 5, 9):
        yield f"jpeg cut at {share}/10", whole[: len(whole) * share // 10]
        yield (
            f"jpeg cut at {share}/10, with an end",
            whole[: len(whole) * share // 10] + b"\xff\xd9",
        )
    yield "jpeg no end", whole[:-2]
    yield "jpeg half an end", whole[:-1]
    marked = jpeg(22, 90, 120, restart_marker_blocks=4)
    at = marked.find(b"\xff\xd3")
    yield "jpeg restart lost", marked[:at] + marked[at + 2 :]
    yield "jpeg restart twice", marked[:at] + b"\xff\xd3" + marked[at:]
    yield "jpeg restart of another number", marked[: at + 1] + b"\xd6" + marked[at + 2 :]
    yield "jpeg restart too many", whole[:-300] + b"\xff\xd0" + whole[-300:]
    yield "jpeg marker in the scan", whole[:-300] + b"\xff\xe4" + whole[-300:]
    yield "jpeg scan of zeros", whole[:-800] + bytes(798) + b"\xff\xd9"
    yield "jpeg scan of ones", whole[:-800] + b"\xff\0" * 399 + b"\xff\xd9"


def jpeg_frames() -> Named:
    whole = jpeg(30)
    at = whole.find(b"\xff\xc0")
    for marker in (0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCF):
        yield f"jpeg frame {marker:x}", whole[: at + 1] + bytes([marker]) + whole[at + 2 :]
    for bits in (0, 12, 16):
        yield f"jpeg {bits} bits", whole[: at + 4] + bytes([bits]) + whole[at + 5 :]
    for components in (0, 2, 4, 255):
        yield (
            f"jpeg {components} components",
            whole[: at + 9] + bytes([components]) + whole[at + 10 :],
        )
    for factors in (0x00, 0x12, 0x41, 0x44, 0xFF):
        yield f"jpeg factors {factors:x}", whole[: at + 11] + bytes([factors]) + whole[at + 12 :]


# --------------------------------------------------------------------------------- other formats


def png_files() -> Named:
    small = picture(40, 41, 33)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield f"png {mode}", saved(small.convert(mode), "PNG")
    for bits in (1, 2, 4):
        indexed = small.quantize(2**bits)
        yield f"png palette of {bits} bits", saved(indexed, "PNG", bits=bits)
        yield (
            f"png palette of {bits} bits, transparent",
            saved(indexed, "PNG", bits=bits, transparency=1),
        )
    yield "png transparent colour", saved(small, "PNG", transparency=(20, 30, 40))
    yield "png transparent grey", saved(small.convert("L"), "PNG", transparency=40)
    deep = (np.arange(40 * 50, dtype=np.uint16) * 30).reshape(40, 50)
    yield "png 16 bits", saved(Image.fromarray(deep), "PNG")
    yield "png 65535 wide", saved(Image.new("L", (65_535, 1), 9), "PNG")
    yield "png 65535 high", saved(Image.new("RGB", (1, 65_535)), "PNG")
    yield "png too wide", saved(Image.new("1", (200_000, 1)), "PNG")
    yield "png animated", saved(small, "PNG", save_all=True, append_images=[picture(41, 41, 33)])
    yield "png EXIF", saved(small, "PNG", exif=rotated())
    yield from pngs.pictures()


def gif_files() -> Named:
    small = picture(50, 41, 33)
    frames = [picture(n, 41, 33).convert("P") for n in range(51, 54)]
    for mode in ("L", "P", "RGB"):
        for interlace in (0, 1):
            yield f"gif {mode} {interlace}", saved(small.convert(mode), "GIF", interlace=interlace)
    yield "gif animated", saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    whole = saved(small.convert("P"), "GIF", transparency=3)
    yield "gif transparent", whole
    yield "gif cut", whole[: len(whole) // 2]
    for side in (0, 5, 300, 9999):
        yield f"gif canvas of {side}", whole[:6] + struct.pack("<HH", side, side) + whole[10:]
    yield "gif 87a", b"GIF87a" + whole[6:]
    yield "gif only a header", whole[:13]


def webp_files() -> Named:
    small = picture(60, 41, 33)
    for mode in ("RGB", "RGBA"):
        for lossless in (False, True):
            yield f"webp {mode} {lossless}", saved(small.convert(mode), "WEBP", lossless=lossless)
    frames = [picture(n, 41, 33) for n in range(61, 64)]
    yield "webp animated", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield "webp EXIF", saved(small, "WEBP", exif=rotated())
    whole = saved(small, "WEBP")
    yield "webp pixel", saved(picture(65, 1, 1), "WEBP")
    yield "webp cut", whole[: len(whole) // 2]
    yield "webp shorter than it says", whole[:4] + struct.pack("<I", 60) + whole[8:]
    yield "webp longer than it says", whole + bytes(30)


def tiff_files() -> Named:
    small = picture(70, 41, 33)
    kinds = [("raw", m) for m in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")]
    kinds += [("tiff_lzw", "RGB"), ("tiff_adobe_deflate", "RGBA"), ("packbits", "L")]
    kinds += [("jpeg", "RGB"), ("group4", "1"), ("tiff_lzw", "P")]
    for compression, mode in kinds:
        image = small.convert("RGB").convert(mode) if mode != "LAB" else Image.new("LAB", (33, 41))
        yield f"tiff {compression} {mode}", saved(image, "TIFF", compression=compression)
    for dtype, most in ((np.uint16, 65_535), (np.int32, 255), (np.int32, 70_000)):
        grey = np.linspace(0, most, 41 * 33).reshape(41, 33).astype(dtype)
        yield f"tiff {np.dtype(dtype).name} up to {most}", saved(Image.fromarray(grey), "TIFF")
    for most in (0, 1, 255, 4000):
        grey = np.linspace(0, most, 41 * 33).reshape(41, 33).astype(np.float32)
        yield f"tiff float32 up to {most}", saved(Image.fromarray(grey), "TIFF")
    pages = [picture(n, 41, 33) for n in range(71, 73)]
    yield "tiff pages", saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    whole = saved(small, "TIFF")
    yield "tiff cut", whole[: len(whole) // 2]
    yield "tiff without a directory", whole[:4] + b"\xff\xff\xff\x7f" + whole[8:]
    yield "tiff of another order", b"MM\0*" + whole[4:]


def other_files() -> Named:
    small = picture(80, 41, 33)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"bmp {mode}", saved(small.convert(mode), "BMP")
    whole = saved(small, "BMP")
    yield "bmp cut", whole[: len(whole) // 2]
    yield "bmp upside down", whole[:22] + struct.pack("<i", -41) + whole[26:]
    for mode in ("1", "L", "RGB"):
        yield f"ppm {mode}", saved(small.convert(mode), "PPM")
    pixels = np.asarray(small)
    yield "ppm comment", b"P6 # why not\n33 41\n255\n" + pixels.tobytes()
    yield "ppm in letters", b"P3\n2 1\n255\n1 2 3\n4 5 6\n"
    yield "ppm 16 bits", b"P6 33 41 65535\n" + (pixels.astype(">u2") * 257).tobytes()
    yield "pgm 16 bits", b"P5 33 41 65535\n" + (pixels[..., 0].astype(">u2") * 257).tobytes()
    yield "ppm up to 9", b"P6 33 41 9\n" + (pixels // 29).tobytes()
    yield "ppm cut", b"P6 33 41 255\n" + pixels.tobytes()[:-1]
    yield "ppm one byte more", b"P6 33 41 255\n" + pixels.tobytes() + b"x"
    yield "ppm of nothing", b"P6 0 0 255\n"
    yield "ppm too large", b"P6 999999999 999999999 255\n"
    for mode in ("L", "RGB", "RGBA"):
        data = saved(small.convert(mode), "JPEG2000")
        yield f"jpeg2000 {mode}", data
        yield f"jpeg2000 {mode} cut", data[: len(data) // 2]
    for mode in ("RGB", "RGBA"):
        data = saved(small.convert(mode), "AVIF")
        yield f"avif {mode}", data
        yield f"avif {mode} cut", data[: len(data) // 2]
    for kind in ("ICO", "TGA", "PCX", "SGI", "PDF", "EPS", "DDS", "XBM"):
        image = small.convert("1") if kind == "XBM" else small
        yield f"{kind}, which is not read", saved(image, kind)


def no_images() -> Named:
    yield "nothing", b""
    yield "text", b"this is no picture"
    yield "page", b"<html><body>404</body></html>"
    yield "svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
    yield "zeros", bytes(3000)
    yield "noise", np.random.default_rng(2).bytes(3000)
    starts = (b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"P6")
    for magic in starts:
        yield f"only {magic!r}", magic
        yield f"{magic!r} and zeros", magic + bytes(200)
    yield "riff", b"RIFF\xff\xff\xff\xffWEBPVP8X" + bytes(40)
    yield "heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90)
