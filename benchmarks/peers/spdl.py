"""SPDL: threads that run the user's functions, here ones that release the GIL.

SPDL has no augmentations; the functions are the opencv peer's, the fastest that its users could
supply. Its own decoder is FFmpeg's, which is slower for JPEGs than libjpeg-turbo.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from patchmill.benchmarks.peers import Batches, opencv
from patchmill.loaders.recipe import Recipe

NOTE = "gets its functions from the opencv peer, and resizes without antialiasing"
DEVICES = opencv.DEVICES
DECODER, ANTIALIASED = opencv.DECODER, False

QUEUED = 2  # batches


def available() -> str | None:
    try:
        import spdl.pipeline  # noqa: F401
    except ImportError:
        return "SPDL is not installed: pip install 'patchmill[peers]'"
    return opencv.available()


def open(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
) -> Batches:
    transforms = opencv.transforms(recipe)  # rejects unsupported views before a thread starts

    def views(path: str) -> list[Tensor]:
        image = opencv.decode(path)
        return [view for transform in transforms for view in transform(image)]

    return _batches(paths, views, workers, batch_size)


def _batches(paths: list[str], views: object, workers: int, batch_size: int) -> Batches:
    import cv2
    from spdl.pipeline import PipelineBuilder

    cv2.setNumThreads(0)
    pipeline = (
        PipelineBuilder()
        .add_source(_shuffled(paths))
        .pipe(views, concurrency=workers)
        .aggregate(batch_size)
        .pipe(_stacked)
        .add_sink(QUEUED)
        .build(num_threads=workers, use_thread_output_queue=True)
    )
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()


def _stacked(samples: list[list[Tensor]]) -> list[Tensor]:
    return [torch.stack(views) for views in zip(*samples, strict=True)]


def _shuffled(paths: list[str]) -> Iterator[str]:
    while True:
        for number in torch.randperm(len(paths)).tolist():
            yield paths[number]
