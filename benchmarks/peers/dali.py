"""NVIDIA DALI's stock operators, with one decode for all views.

Written for speed: conditionals run an operation only on the samples that need it, and the blur's
window is three sigma of each sample (DALI's default, and ours). Ports of self-supervised methods
that compute both branches for every sample, or blur with one fixed wide window, are slower.
"""

from __future__ import annotations

from typing import Any, cast

from patchmill.benchmarks.peers import Batches
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import (
    Blur,
    Centre,
    Colour,
    Crop,
    Recipe,
    Views,
    Window,
    chance_of,
)

try:
    from nvidia.dali import fn, math, pipeline_def, types
except ImportError:
    fn = None

NOTE = (
    "jitters in one fixed order, with a linear hue (YIQ), and turns photos upright by their EXIF; "
    "views on a GPU are float16"
)
DEVICES = {"cpu": "", "cuda": ""}
DECODER, ANTIALIASED = "DALI", True


def available() -> str | None:
    return "DALI is not installed: pip install 'patchmill[dali]'" if fn is None else None


def open(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
) -> Batches:
    """On a GPU, decode with nvJPEG and make the views there, helped by `workers` threads."""
    for group in recipe.views:
        if not isinstance(group.crop, Crop | Window | Centre) or group.turns:
            raise MillError(f"the dali peer cannot make view group {group.name!r} of {recipe.name}")
    return _batches(paths, recipe, workers, batch_size, device)


def _batches(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str
) -> Batches:
    import torch
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    torch_device = torch.device(device)
    define = pipeline_def(_views, enable_conditionals=True)
    device_id = None if torch_device.type == "cpu" else torch_device.index or 0
    decoder = (
        {"device": "cpu"}
        if torch_device.type == "cpu"
        else _mixed_decoder(paths, torch_device, workers, batch_size)
    )
    pipeline = define(
        paths, recipe, decoder, batch_size=batch_size, num_threads=workers, device_id=device_id
    )
    names = [f"view{number}" for number in range(recipe.total)]
    for (views,) in DALIGenericIterator(pipeline, names):  # tensors in DALI's memory, not copied
        yield views


def _mixed_decoder(paths: list[str], device: Any, threads: int, batch_size: int) -> dict[str, Any]:
    """Decode on a GPU, with the same share of the hardware JPEG unit as our own pipeline."""
    import numpy as np

    from patchmill.loaders.pipelines.dali.hardware_share import hardware_share

    probe = [np.fromfile(path, np.uint8) for path in paths[:batch_size]]
    return {"device": "mixed", "hw_decoder_load": hardware_share(device, threads, probe)}


def _views(paths: list[str], recipe: Recipe, decoder: dict[str, Any]) -> tuple[Any, ...]:
    encoded, _ = fn.readers.file(files=paths, shuffle_after_epoch=True)
    images = fn.decoders.image(encoded, **decoder)
    dtype = types.FLOAT if decoder["device"] == "cpu" else types.FLOAT16
    return tuple(
        _view(images, group, view, dtype) for group in recipe.views for view in range(group.count)
    )


def _view(images: Any, group: Views, view: int, dtype: Any) -> Any:
    pixels = _crop(images, group)
    if group.colour:
        pixels = _colour(pixels, group.colour, view)
    if group.blur:
        if _bernoulli(chance_of(group.blur.p, view)):
            pixels = _blur(pixels, group.blur)
    if chance_of(group.solarise, view) > 0:
        if _bernoulli(chance_of(group.solarise, view)):
            pixels = math.min(pixels, types.Constant(255).uint8() - pixels)
    return fn.crop_mirror_normalize(
        pixels,
        dtype=dtype,
        output_layout="CHW",
        mean=[255 * value for value in group.mean],
        std=[255 * value for value in group.std],
        mirror=fn.random.coin_flip(probability=chance_of(group.flip, view)),
    )


def _crop(images: Any, group: Views) -> Any:
    law, side = group.crop, (group.size, group.size)
    interp = types.INTERP_CUBIC if group.interpolation == "bicubic" else types.INTERP_LINEAR
    if isinstance(law, Crop):
        return fn.random_resized_crop(
            images,
            size=side,
            random_area=law.scale,
            random_aspect_ratio=law.ratio,
            interp_type=interp,
        )
    law = cast(Window | Centre, law)
    resized = fn.resize(images, resize_shorter=law.short_side, interp_type=interp)
    if isinstance(law, Centre):
        return fn.crop(resized, crop=side)
    return fn.crop(resized, crop=side, crop_pos_x=_uniform(0, 1), crop_pos_y=_uniform(0, 1))


def _colour(pixels: Any, colour: Colour, view: int) -> Any:
    if colour.grey_first:
        pixels = _grey(pixels, chance_of(colour.grey, view))
    if _bernoulli(chance_of(colour.p, view)):
        pixels = fn.color_twist(
            pixels,
            brightness=_factor(colour.brightness),
            contrast=_factor(colour.contrast),
            saturation=_factor(colour.saturation),
            hue=_uniform(-360 * colour.hue, 360 * colour.hue),
        )
    if not colour.grey_first:
        pixels = _grey(pixels, chance_of(colour.grey, view))
    return pixels


def _grey(pixels: Any, chance: float) -> Any:
    if _bernoulli(chance):
        pixels = fn.saturation(pixels, saturation=0.0)
    return pixels


def _blur(pixels: Any, blur: Blur) -> Any:
    window = {"window_size": blur.kernel} if blur.kernel else {}
    return fn.gaussian_blur(pixels, sigma=_uniform(*blur.sigma), **window)


def _bernoulli(chance: float) -> Any:
    return fn.random.coin_flip(probability=chance, dtype=types.BOOL)


def _factor(strength: float) -> Any:
    return _uniform(max(0.0, 1 - strength), 1 + strength)


def _uniform(low: float, high: float) -> Any:
    return fn.random.uniform(range=[low, high]) if low < high else low
