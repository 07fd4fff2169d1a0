"""Renders one scene from a seed: draws its content, then the camera and the JPEG encoding."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg

from patchmill.loaders.sources.scenes import backgrounds, compose, shapes
from patchmill.loaders.sources.scenes import noise as scene_noise
from patchmill.loaders.sources.scenes import objects as scene_objects

# Image sizes typical of the web: width, height, probability.
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
_ENCODINGS = (("444", 0.74), ("420", 0.19), ("422", 0.02), ("grey", 0.03), ("progressive", 0.02))
_MIN_RENDER_SIDE = 256  # smaller images are rendered at a multiple of their size

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
class SceneSettings:
    """All settings that a scene depends on, besides its index."""

    seed: int
    background_bias: float
    swap_backgrounds: bool
    objects: tuple[int, int]
    classes: int
    size: int | None


@dataclass(frozen=True)
class Scene:
    """A rendered scene."""

    jpeg: bytes
    object_map: np.ndarray  # uint8 [height, width]: object at each pixel; 0 none, 1 the main one
    object_labels: tuple[int, ...]  # of objects 1, 2, ..., also of those that cannot be seen
    background: int

    @property
    def label(self) -> int:
        return self.object_labels[0]


def class_name(label: int) -> str:
    """Classes beyond the ten shapes are the same shapes in other colours."""
    shape, variant = label % len(shapes.SHAPES), label // len(shapes.SHAPES)
    return shapes.SHAPES[shape] + (f"-{variant + 1}" if variant else "")


def make_scene(settings: SceneSettings, index: int) -> Scene:
    """Render scene `index`.

    Objects, background and camera have random streams of their own, so settings that concern the
    background leave the objects unchanged.
    """
    object_rng, background_rng, camera_rng = (
        np.random.Generator(np.random.Philox(key=[settings.seed, 3 * index + stream]))
        for stream in range(3)
    )
    label = int(object_rng.integers(settings.classes))
    background = _draw_background(settings, label, background_rng)
    width, height = _draw_size(settings, camera_rng)
    factor = max(1, round(_MIN_RENDER_SIDE / min(width, height)))
    canvas = np.zeros((height * factor, width * factor, 3), np.float32)
    _paint_background(canvas, background, background_rng)
    radius = int(camera_rng.integers(1, 4)) * min(canvas.shape[:2]) // 400
    if camera_rng.random() < 0.45 and radius:
        compose.box_blur(canvas, np.empty_like(canvas), radius)
    object_map = np.zeros(canvas.shape[:2], np.uint8)
    labels = _draw_objects(canvas, object_map, settings, label, object_rng)
    if factor > 1:
        canvas = compose.downsample(canvas, factor)
        object_map = scene_objects.shrink(object_map, factor)
    return Scene(_photograph(canvas, settings, camera_rng), object_map, labels, background)


def _draw_background(settings: SceneSettings, label: int, rng: np.random.Generator) -> int:
    biased = rng.random() < settings.background_bias
    uniform = int(rng.integers(settings.classes))
    if settings.swap_backgrounds:
        return (label + 1) % settings.classes
    return label if biased else uniform


def _draw_size(settings: SceneSettings, rng: np.random.Generator) -> tuple[int, int]:
    pick = rng.choice(len(_SIZES), p=[probability for *_, probability in _SIZES])
    width, height, _ = _SIZES[pick]
    return (width, height) if settings.size is None else (settings.size, settings.size)


# ------------------------------------------------------------------------------------- the content


def _paint_background(canvas: np.ndarray, background: int, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    name, paint, outdoors = backgrounds.PAINTERS[background % len(backgrounds.PAINTERS)]
    hue_shift = 0.137 * (background // len(backgrounds.PAINTERS)) + rng.uniform(-0.03, 0.03)
    palette = _tint(backgrounds.PALETTES[name], hue_shift, rng)
    sky = _tint(backgrounds.PALETTES["sky"], rng.uniform(-0.02, 0.02), rng)
    scale = 400 / min(height, width) * rng.uniform(0.75, 1.35)
    # Far from zero: atlas coordinates must not become negative.
    ox, oy = 16384 + 512 * rng.random(2)
    horizon = int(height * rng.uniform(0.16, 0.5)) if outdoors else 0
    if outdoors:
        bottom = horizon if name != "mountains" else (horizon + height) // 2
        backgrounds.sky(canvas, scene_noise.atlas(), sky, scale, ox + 77, oy, bottom)
    paint(canvas, scene_noise.atlas(), palette, scale, ox, oy, height if name == "sky" else horizon)


def _draw_objects(
    canvas: np.ndarray,
    object_map: np.ndarray,
    settings: SceneSettings,
    label: int,
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """Draw the objects back to front; the main one, which is the label, is last and largest.

    Returns the class of every object, the main one first.
    """
    height, width = object_map.shape
    short = min(height, width)
    count = int(rng.integers(settings.objects[0], settings.objects[1] + 1))
    main_radius = short * rng.uniform(0.24, 0.46)
    x, y = width * rng.uniform(0.22, 0.78), height * rng.uniform(0.32, 0.72)
    side = 1.0 if rng.random() < 0.5 else -1.0
    light = np.array([side * 0.6, -0.8, rng.uniform(0.35, 0.6), rng.uniform(0.12, 0.3)])
    labels = [label] * count
    for number in range(count, 0, -1):
        centre, radius, kind = (x, y), main_radius, label
        if number > 1:
            radius = main_radius * rng.uniform(0.26, 0.42)
            labels[number - 1] = kind = int(rng.integers(settings.classes))
            centre = max(
                (tuple(rng.uniform(0.02, 0.98, 2) * (width, height)) for _ in range(4)),
                key=lambda p: min(math.hypot(p[0] - x, p[1] - y) / main_radius, 1.5),
            )
        shape = kind % len(shapes.SHAPES)
        rotation = rng.normal() * (0.35 if shape in (3, 6, 8) else 1.2)
        mirror, squash = (1.0 if rng.random() < 0.5 else -1.0), rng.uniform(0.86, 1.12)
        hue_shift = 0.381 * (kind // len(shapes.SHAPES)) + rng.uniform(-0.035, 0.035)
        colours = _tint(_COLOURS[shape], hue_shift, rng)
        compose.draw_object(
            canvas,
            object_map,
            number,
            scene_noise.atlas(),
            shape,
            (centre[0], centre[1], radius, rotation, mirror, squash),
            colours + _WHITE_AND_INK,
            light,
            compose.BEVEL[shape],
            compose.GLOSS[shape],
        )
    return tuple(labels)


def _tint(colours: _Colours, turns: float, rng: np.random.Generator) -> tuple[Any, ...]:
    """Rotate hues by `turns` around the grey axis, with a random brightness."""
    c, s = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns) / math.sqrt(3)
    d = (1 - c) / 3
    matrix = np.array([[c + d, d - s, d + s], [d + s, c + d, d - s], [d - s, d + s, c + d]])
    tinted = np.clip(np.array(colours) @ matrix.T * rng.uniform(0.85, 1.15), 0.01, 1.0)
    return tuple(map(tuple, tinted.tolist()))


# -------------------------------------------------------------------------------------- the camera


def _photograph(canvas: np.ndarray, settings: SceneSettings, rng: np.random.Generator) -> bytes:
    """Apply the camera model and encode the photo as JPEG."""
    noise = min(float(rng.lognormal(0.3, 0.8)), 7.0)
    warmth, exposure = rng.normal() * 0.03, rng.uniform(0.85, 1.15)
    luma, chroma = _noise_tables()
    photo = compose.develop(
        canvas,
        luma * np.float32(noise),
        chroma * np.float32(0.5 * noise),
        rng.uniform(0.0, 0.5),
        np.array([exposure * (1 + warmth), exposure, exposure * (1 - warmth)], np.float32),
        rng.uniform(0.0, 0.3),
        int(rng.integers(1 << 16)),
    )
    quality = int(rng.integers(94, 98)) if rng.random() < 0.7 else int(rng.integers(75, 94))
    names, probabilities = zip(*_ENCODINGS, strict=True)
    encoding = names[rng.choice(len(names), p=np.array(probabilities))]
    if encoding == "progressive":
        return _encode_progressive(photo, quality)
    if encoding == "grey":
        luma = photo @ np.array([0.299, 0.587, 0.114])
        grey = (luma + 0.5).astype(np.uint8)[:, :, None]
        return simplejpeg.encode_jpeg(grey, quality, "GRAY", "Gray", fastdct=False)
    return simplejpeg.encode_jpeg(photo, quality, "RGB", encoding, fastdct=False)


def _encode_progressive(photo: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=quality, progressive=True)
    return file.getvalue()


@functools.cache
def _noise_tables() -> tuple[np.ndarray, np.ndarray]:
    """Unit noise for interleaved RGB values: equal for the three of a pixel, and independent."""
    random = np.random.Generator(np.random.Philox(key=5))
    luma = np.repeat(random.standard_normal(1 << 15, np.float32), 3)
    return luma, random.standard_normal(len(luma), np.float32)
