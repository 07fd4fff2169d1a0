"""FFCV's stock operations on a .beton of JPEGs; each view is a pipeline that decodes again."""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from patchmill.benchmarks.peers import Batches
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Crop, Recipe, Views, chance_of

with contextlib.suppress(ImportError):
    from patchmill.loaders.pipelines.ffcv import workarounds  # noqa: F401  # before FFCV

try:
    from ffcv import transforms
    from ffcv.fields import RGBImageField
    from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline import PipelineSpec
    from ffcv.writer import DatasetWriter
except ImportError:
    Loader = None

NOTE = (
    "does less: FFCV has no hue, grey, blur or solarise, and resizes by area whatever the recipe "
    "says; its photos were written anew at quality 90"
)
DEVICES = {"cpu": "", "cuda": "it makes views on a CPU; compare it with --device cpu"}
DECODER, ANTIALIASED = "FFCV", True

MIN_EPOCH = 100_000  # images: FFCV's queue drains at the end of an epoch


def available() -> str | None:
    return "FFCV is not installed: pip install 'patchmill[ffcv]'" if Loader is None else None


def open(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
) -> Batches:
    for group in recipe.views:
        if not isinstance(group.crop, Crop) or group.turns:
            raise MillError(f"the ffcv peer cannot make view group {group.name!r} of {recipe.name}")
    return _batches(paths, recipe, workers, batch_size)


def _batches(paths: list[str], recipe: Recipe, workers: int, batch_size: int) -> Batches:
    with tempfile.TemporaryDirectory() as folder:
        beton = str(Path(folder) / "photos.beton")
        _write(paths, beton)
        indices = np.tile(np.arange(len(paths)), -(-MIN_EPOCH // len(paths)))
        loader = make_loader(beton, recipe, workers, batch_size, indices=indices)
        while True:
            yield from one_epoch(loader)


def make_loader(
    beton: str, recipe: Recipe, workers: int, batch_size: int, **settings: Any
) -> Loader:
    """FFCV's loader with a pipeline, and therefore a decode, per view."""
    views = [(group, view) for group in recipe.views for view in range(group.count)]
    return Loader(
        beton,
        batch_size=batch_size,
        num_workers=workers,
        order=OrderOption.RANDOM,
        pipelines={"image": None}
        | {f"view{number}": _pipeline(*view) for number, view in enumerate(views)},
        **settings,
    )


def one_epoch(loader: Loader) -> Iterator[Any]:
    epoch = iter(loader)
    try:
        yield from epoch
    finally:
        _stop_thread(epoch)


def _stop_thread(epoch: Any) -> None:
    """Drain the queue until FFCV's thread notices the end; it must not outlive Python."""
    epoch.iter_ixes = iter(())
    while epoch.is_alive():
        with contextlib.suppress(queue.Empty):
            epoch.output_queue.get(timeout=0.05)
    epoch.close()


def _pipeline(group: Views, view: int) -> Any:
    steps = [transforms.RandomHorizontalFlip(chance_of(group.flip, view))]
    if group.colour:
        p = chance_of(group.colour.p, view)
        steps += [
            transforms.RandomBrightness(group.colour.brightness, p),
            transforms.RandomContrast(group.colour.contrast, p),
            transforms.RandomSaturation(group.colour.saturation, p),
        ]
    mean, std = 255 * np.array(group.mean), 255 * np.array(group.std)
    steps += [
        transforms.NormalizeImage(mean, std, np.float32),
        transforms.ToTensor(),
        transforms.ToTorchImage(),
    ]
    law = cast(Crop, group.crop)
    decoder = RandomResizedCropRGBImageDecoder((group.size, group.size), law.scale, law.ratio)
    return PipelineSpec("image", decoder, steps)


class FieldTuples:
    """Indexed data set for FFCV's writer: one tuple of fields per sample."""

    def __init__(self, paths: list[str]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray]:
        return (np.array(Image.open(self.paths[index]).convert("RGB")),)


def _write(paths: list[str], beton: str) -> None:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        writer = DatasetWriter(beton, {"image": RGBImageField("jpg")}, num_workers=1)
        writer.from_indexed_dataset(FieldTuples(paths))
