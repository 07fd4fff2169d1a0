"""One scene from a seed: what is in it, and how the photo of it was taken and stored."""

from __future__ import annotations

import functools
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg

from patchmill.loaders.sources.scenes import backgrounds, compose, shapes
from patchmill.loaders.sources.scenes import noise as scene_noise

# What cameras and web sites make, with how often: width, height, share.
_SIZES = (
    (500, 375, 0.46),
    (500, 333, 0.2),
    (375, 500, 0.1),
    (333, 500, 0.06),
    (640, 480, 0.06),
    (320, 240, 0.04),
    (256, 256, 0.04),
    (400, 400, 0.02),
    (1024, 768, 0.02),
)
_FINISHES = (("444", 0.74), ("420", 0.19), ("422", 0.02), ("grey", 0.03), ("progressive", 0.02))
_COARSEST = 256  # smaller pictures are painted at a multiple of their size, and shrunk

_COLOURS = (
    [(0.86, 0.16, 0.14), (0.15, 0.4, 0.8), (0.98, 0.8, 0.18), (0.2, 0.62, 0.35)],  # ball
    [(0.88, 0.36, 0.14), (0.97, 0.58, 0.25), (0.99, 0.84, 0.58), (0.6, 0.2, 0.1)],  # starfish
    [(0.95, 0.55, 0.12), (0.99, 0.8, 0.45), (0.75, 0.25, 0.1), (0.97, 0.96, 0.92)],  # fish
    [(0.82, 0.12, 0.1), (0.66, 0.06, 0.07), (0.9, 0.85, 0.7), (0.62, 0.52, 0.38)],  # mushroom
    [(0.88, 0.35, 0.62), (0.62, 0.12, 0.42), (0.99, 0.8, 0.2), (0.65, 0.38, 0.08)],  # flower
    [(0.96, 0.56, 0.1), (0.99, 0.78, 0.25), (0.35, 0.55, 0.9), (0.4, 0.2, 0.1)],  # butterfly
    [(0.2, 0.5, 0.62), (0.97, 0.88, 0.65), (0.88, 0.4, 0.25), (0.4, 0.22, 0.12)],  # mug
    [(0.95, 0.52, 0.68), (0.35, 0.75, 0.85), (0.78, 0.52, 0.26), (0.6, 0.36, 0.15)],  # doughnut
    [(0.62, 0.5, 0.38), (0.85, 0.76, 0.64), (0.25, 0.19, 0.15), (0.55, 0.72, 0.3)],  # cat
    [(0.8, 0.1, 0.08), (0.93, 0.25, 0.1), (0.4, 0.38, 0.4), (0.2, 0.2, 0.2)],  # beetle
)
_WHITE_AND_INK = ((0.95, 0.94, 0.9), (0.06, 0.05, 0.06))

_Colours = Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class Settings:
    """Everything a scene depends on besides its number."""

    seed: int
    background_bias: float
    swap_backgrounds: bool
    objects: tuple[int, int]
    classes: int
    size: int | None


@dataclass(frozen=True)
class Scene:
    """A finished scene; `owner` says which thing covers each pixel: 0 none, 1 the main one."""

    jpeg: bytes
    owner: np.ndarray  # uint8 [height, width]
    label: int
    background: int

    def packed_mask(self) -> bytes:
        return zlib.compress(np.packbits(self.owner > 0).tobytes(), 6)


def unpacked_mask(packed: bytes, height: int, width: int) -> np.ndarray:
    bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.unpackbits(bits, count=height * width).reshape(height, width) * np.uint8(255)


def class_name(label: int) -> str:
    """Beyond the ten shapes, classes are the same shapes in other colours."""
    shape, variant = label % len(shapes.NAMES), label // len(shapes.NAMES)
    return shapes.NAMES[shape] + (f"-{variant + 1}" if variant else "")


def make(settings: Settings, index: int) -> Scene:
    """The scene with this number. Things and background come from separate draws, so settings that
    only concern the background leave the things as they are."""
    things, ground, camera = (
        np.random.Generator(np.random.Philox(key=[settings.seed, 3 * index + stream]))
        for stream in range(3)
    )
    label = int(things.integers(settings.classes))
    background = _background(settings, label, ground)
    width, height = _size(settings, camera)
    factor = max(1, round(_COARSEST / min(width, height)))
    canvas = np.zeros((height * factor, width * factor, 3), np.float32)
    horizon = _paint_background(canvas, background, ground)
    radius = int(camera.integers(1, 4)) * min(canvas.shape[:2]) // 400
    if camera.random() < 0.45 and radius:
        compose.blur(canvas, np.empty_like(canvas), radius)
    owner = np.zeros(canvas.shape[:2], np.uint8)
    _place_things(canvas, owner, settings, label, horizon, things)
    if factor > 1:
        canvas = compose.shrink(canvas, factor)
        blocks = (owner > 0).reshape(height, factor, width, factor).mean((1, 3))
        owner = (blocks >= 0.5).astype(np.uint8)
    return Scene(_photograph(canvas, settings, camera), owner, label, background)


def _background(settings: Settings, label: int, ground: np.random.Generator) -> int:
    tied, anything = (
        ground.random() < settings.background_bias,
        int(ground.integers(settings.classes)),
    )
    if settings.swap_backgrounds:
        return (label + 1) % settings.classes
    return label if tied else anything


def _size(settings: Settings, camera: np.random.Generator) -> tuple[int, int]:
    pick = camera.choice(len(_SIZES), p=[share for *_, share in _SIZES])
    width, height, _ = _SIZES[pick]
    return (width, height) if settings.size is None else (settings.size, settings.size)


# --------------------------------------------------------------------------------------- the scene


def _paint_background(canvas: np.ndarray, background: int, ground: np.random.Generator) -> int:
    """Returns the horizon's row: 0 where there is none."""
    height, width = canvas.shape[:2]
    name, paint, outdoors = backgrounds.PAINTERS[background % len(backgrounds.PAINTERS)]
    shift = 0.137 * (background // len(backgrounds.PAINTERS)) + ground.uniform(-0.03, 0.03)
    colours = _tinted(backgrounds.PALETTES[name], shift, ground)
    sky = _tinted(backgrounds.PALETTES["sky"], ground.uniform(-0.02, 0.02), ground)
    unit = 400 / min(height, width) * ground.uniform(0.75, 1.35)
    # Far from zero, because look-ups must not become negative.
    ox, oy = 16384 + 512 * ground.random(2)
    horizon = int(height * ground.uniform(0.16, 0.5)) if outdoors else 0
    if outdoors:
        down = horizon if name != "mountains" else (horizon + height) // 2
        backgrounds.sky(canvas, scene_noise.atlas(), sky, unit, ox + 77, oy, down)
    paint(canvas, scene_noise.atlas(), colours, unit, ox, oy, height if name == "sky" else horizon)
    return horizon


def _place_things(
    canvas: np.ndarray,
    owner: np.ndarray,
    settings: Settings,
    label: int,
    horizon: int,
    things: np.random.Generator,
) -> None:
    """The main thing is painted last, and much larger than any other, so that it is the label."""
    height, width = owner.shape
    short = min(height, width)
    number = int(things.integers(settings.objects[0], settings.objects[1] + 1))
    main = short * things.uniform(0.24, 0.46)
    x, y = width * things.uniform(0.22, 0.78), height * things.uniform(0.32, 0.72)
    side = 1.0 if things.random() < 0.5 else -1.0
    light = np.array([side * 0.6, -0.8, things.uniform(0.35, 0.6), things.uniform(0.12, 0.3)])
    for thing in range(number, 0, -1):
        at, radius, kind = (x, y), main, label
        if thing > 1:
            radius = main * things.uniform(0.26, 0.42)
            kind = int(things.integers(settings.classes))
            at = max(
                (tuple(things.uniform(0.02, 0.98, 2) * (width, height)) for _ in range(4)),
                key=lambda p: min(math.hypot(p[0] - x, p[1] - y) / main, 1.5),
            )
        shape = kind % len(shapes.NAMES)
        turn = things.normal() * (0.35 if shape in (3, 6, 8) else 1.2)
        mirror, squash = (1.0 if things.random() < 0.5 else -1.0), things.uniform(0.86, 1.12)
        shift = 0.381 * (kind // len(shapes.NAMES)) + things.uniform(-0.035, 0.035)
        colours = _tinted(_COLOURS[shape], shift, things)
        compose.stamp(
            canvas,
            owner,
            thing,
            scene_noise.atlas(),
            shape,
            (at[0], at[1], radius, turn, mirror, squash),
            colours + _WHITE_AND_INK,
            light,
            compose.BEVEL[shape],
            compose.GLOSS[shape],
        )


def _tinted(colours: _Colours, turns: float, random: np.random.Generator) -> tuple[Any, ...]:
    """Colours with their hue turned around the grey axis, a little brighter or darker."""
    c, s = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns) / math.sqrt(3)
    d = (1 - c) / 3
    matrix = np.array([[c + d, d - s, d + s], [d + s, c + d, d - s], [d - s, d + s, c + d]])
    tinted = np.clip(np.array(colours) @ matrix.T * random.uniform(0.85, 1.15), 0.01, 1.0)
    return tuple(map(tuple, tinted.tolist()))


# -------------------------------------------------------------------------------------- the camera


def _photograph(canvas: np.ndarray, settings: Settings, camera: np.random.Generator) -> bytes:
    noise = min(float(camera.lognormal(0.3, 0.8)), 7.0)
    warmth, exposure = camera.normal() * 0.03, camera.uniform(0.85, 1.15)
    luma, chroma = _grain()
    photo = compose.develop(
        canvas,
        luma * np.float32(noise),
        chroma * np.float32(0.5 * noise),
        camera.uniform(0.0, 0.5),
        np.array([exposure * (1 + warmth), exposure, exposure * (1 - warmth)], np.float32),
        camera.uniform(0.0, 0.3),
        int(camera.integers(1 << 16)),
    )
    quality = (
        int(camera.integers(94, 98)) if camera.random() < 0.7 else int(camera.integers(75, 94))
    )
    names, shares = zip(*_FINISHES, strict=True)
    finish = names[camera.choice(len(names), p=np.array(shares))]
    if finish == "progressive":
        return _progressive(photo, quality)
    if finish == "grey":
        luma = photo @ np.array([0.299, 0.587, 0.114])
        grey = (luma + 0.5).astype(np.uint8)[:, :, None]
        return simplejpeg.encode_jpeg(grey, quality, "GRAY", "Gray", fastdct=False)
    return simplejpeg.encode_jpeg(photo, quality, "RGB", finish, fastdct=False)


def _progressive(photo: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=quality, progressive=True)
    return file.getvalue()


@functools.cache
def _grain() -> tuple[np.ndarray, np.ndarray]:
    """Noise of unit strength for interleaved values: equal for a pixel's three, and independent."""
    random = np.random.Generator(np.random.Philox(key=5))
    luma = np.repeat(random.standard_normal(1 << 15, np.float32), 3)
    return luma, random.standard_normal(len(luma), np.float32)
