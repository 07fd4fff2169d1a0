"""Batches of images with their targets, loaded by threads in an order drawn from the seed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.threads import map_ahead
from patchmill.loaders.order.permutation import Order
from patchmill.training.evaluation.detect.annotated import AnnotatedImages, Instance, pixels
from patchmill.training.evaluation.detect.coco_checks import runs_fit


class Example(NamedTuple):
    """An image, and its targets in the format of torchvision's detectors."""

    image: torch.Tensor  # uint8 [3, height, width]
    target: dict[str, torch.Tensor]

    def to(self, device: torch.device) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Move the image, scaled to [0, 1], and the targets to a device."""
        target = {key: value.to(device) for key, value in self.target.items()}
        return self.image.to(device).float() / 255, target


def training(
    images: AnnotatedImages, batch: int, steps: int, seed: int, masked: bool, threads: int
) -> Iterator[list[Example]]:
    """Yield `steps` batches; half of the images are mirrored. A batch may span two epochs."""
    draws = islice(_draws(len(images), seed), batch * steps)
    work = partial(_load, images, masked)
    with contextlib.closing(map_ahead(work, draws, threads, 2 * batch)) as examples:
        for _ in range(steps):
            yield list(islice(examples, batch))


def testing(images: AnnotatedImages, batch: int, threads: int) -> Iterator[list[Example]]:
    """Yield all images in order, without targets."""

    def load(index: int) -> Example:
        return Example(_to_tensor(pixels(images, index)), {})

    with contextlib.closing(map_ahead(load, range(len(images)), threads, 2 * batch)) as examples:
        while examples_of_batch := list(islice(examples, batch)):
            yield examples_of_batch


def _draws(images: int, seed: int) -> Iterator[tuple[int, bool]]:
    """Yield image indices and whether to mirror them: one permutation after another."""
    order = Order(images, seed)
    for epoch in count():
        mirrored = np.random.default_rng([seed, epoch]).random(images) < 0.5
        yield from zip(order.ids(epoch, 0, images).tolist(), mirrored.tolist(), strict=True)


def _load(images: AnnotatedImages, masked: bool, draw: tuple[int, bool]) -> Example:
    index, mirrored = draw
    instances = [instance for instance in images.instances(index) if not instance.crowd]
    width, height = images.size(index)
    image = _to_tensor(pixels(images, index))
    boxes = torch.tensor([instance.box for instance in instances]).reshape(-1, 4)
    labels = torch.tensor([instance.label + 1 for instance in instances], dtype=torch.int64)
    masks = _masks(instances, height, width) if masked else None
    if mirrored:
        image = image.flip(2)
        boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        masks = None if masks is None else masks.flip(2)
    target = {"boxes": boxes, "labels": labels}
    return Example(image, target if masks is None else {**target, "masks": masks})


def _masks(instances: list[Instance], height: int, width: int) -> torch.Tensor:
    """Return uint8 [objects, height, width], of 0 and 1."""
    masks = [mask_of(instance.shape, height, width) for instance in instances]
    return torch.from_numpy(np.stack(masks) if masks else np.zeros((0, height, width), np.uint8))


def mask_of(shape: Any, height: int, width: int) -> np.ndarray:
    """Decode COCO's polygons or RLE to uint8 [height, width]."""
    from pycocotools import mask as rle

    if isinstance(shape, dict) and not runs_fit(shape, width, height):  # pycocotools does not check
        raise MillError(f"a mask's run lengths (RLE) do not fill its image of {width} x {height}")
    if isinstance(shape, list):
        shape = rle.merge(rle.frPyObjects(shape, height, width))
    elif isinstance(shape["counts"], list):
        shape = rle.frPyObjects(shape, height, width)
    return rle.decode(shape)


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)
