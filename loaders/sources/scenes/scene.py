"""Renders one scene from a seed: draws its content, then the camera and the JPEG encoding."""

from __future__ import annotations

import functools
import io
import math
from dataclasses import dataclass

import numpy as np
import simplejpeg

from patchmill.loaders.sources.scenes import backgrounds, compose, palettes, shapes
from patchmill.loaders.sources.scenes import noise as scene_noise
from patchmill.loaders.sources.scenes import objects as scene_objects
from patchmill.loaders.sources.scenes.textures import PATTERNS

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
_MIN_RENDER_SIDE = 128  # smaller images are rendered at a multiple of their size

# Factor of each shape on the radius of an object, which makes objects of all shapes equally large.
_RADIUS = tuple(math.sqrt(2.2 / area) for area in shapes.AREA)


@dataclass(frozen=True)
class SceneSettings:
    """All settings that a scene depends on, except its index."""

    seed: int
    background_bias: float
    colour_bias: float
    swap_backgrounds: bool
    objects: tuple[int, int]
    classes: int
    size: int | None


@dataclass(frozen=True)
class Scene:
    """A rendered scene."""

    jpeg: bytes
    object_map: np.ndarray  # uint8 [height, width]: object at each pixel; 0 none, 1 the main one
    object_labels: tuple[int, ...]  # of objects 1, 2, ..., including invisible ones
    background: int

    @property
    def label(self) -> int:
        return self.object_labels[0]


def class_name(label: int) -> str:
    """Name of a class: pattern and shape, such as `striped-cat`.

    The first ten classes are the shapes; the next ten are the same shapes with stripes, and so on.
    """
    pattern, shape = divmod(label, len(shapes.SHAPES))
    prefix = f"{PATTERNS[pattern]}-" if pattern else ""
    return prefix + shapes.SHAPES[shape]


def make_scene(settings: SceneSettings, index: int) -> Scene:
    """Render scene `index`.

    Objects, their colours, background and camera have separate random streams, so a setting of one
    leaves the others unchanged.
    """
    object_rng, colour_rng, background_rng, camera_rng = (
        np.random.Generator(np.random.Philox(key=[settings.seed, 4 * index + stream]))
        for stream in range(4)
    )
    label = int(object_rng.integers(settings.classes))
    background = _draw_background(settings, label, background_rng)
    width, height = _draw_size(settings, camera_rng)
    factor = math.ceil(_MIN_RENDER_SIDE / min(width, height))
    canvas = np.zeros((height * factor, width * factor, 3), np.float32)
    _paint_background(canvas, background, background_rng)
    radius = int(camera_rng.integers(1, 4)) * min(canvas.shape[:2]) // 400
    if camera_rng.random() < 0.45 and radius:
        compose.box_blur(canvas, np.empty_like(canvas), radius)
    object_map = np.zeros(canvas.shape[:2], np.uint8)
    labels = _draw_objects(canvas, object_map, settings, label, object_rng, colour_rng)
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
    palette = palettes.tint(backgrounds.PALETTES[name], hue_shift, rng.uniform(0.85, 1.15))
    sky_shift = rng.uniform(-0.02, 0.02)
    sky = palettes.tint(backgrounds.PALETTES["sky"], sky_shift, rng.uniform(0.85, 1.15))
    scale = 400 / min(height, width) * rng.uniform(0.75, 1.35)
    # Far from zero, because atlas coordinates must not become negative.
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
    colour_rng: np.random.Generator,
) -> tuple[int, ...]:
    """Draw the objects back to front; the main one, which is the label, is last and largest.

    Returns the class of every object, the main one first.
    """
    height, width = object_map.shape
    short = min(height, width)
    count = int(rng.integers(settings.objects[0], settings.objects[1] + 1))
    main_radius = short * rng.uniform(0.3, 0.46)
    x, y = width * rng.uniform(0.34, 0.66), height * rng.uniform(0.38, 0.64)
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
        pattern, shape = divmod(kind, len(shapes.SHAPES))
        rotation = rng.normal() * (0.25 if shape in (3, 6, 8) else 0.4)
        contrast = rng.uniform(0.6, 1.3)
        mirror, squash = (1.0 if rng.random() < 0.5 else -1.0), rng.uniform(0.86, 1.12)
        compose.draw_object(
            canvas,
            object_map,
            number,
            scene_noise.atlas(),
            shape,
            pattern,
            (*centre, radius * _RADIUS[shape], rotation, mirror, squash),
            palettes.draw(kind, settings.colour_bias, colour_rng),
            light,
            (compose.BEVEL[shape], compose.GLOSS[shape], compose.CONTRAST[shape] * contrast),
        )
    return tuple(labels)


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
    """Unit noise for interleaved RGB values: shared by a pixel's channels, and independent."""
    random = np.random.Generator(np.random.Philox(key=5))
    luma = np.repeat(random.standard_normal(1 << 15, np.float32), 3)
    return luma, random.standard_normal(len(luma), np.float32)
