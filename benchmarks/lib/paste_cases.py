"""What there is to paste: pictures with masks, and the views that a recipe makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchmill.benchmarks.lib.sample import Sample
from patchmill.kernels.views.decisions import ON_IMAGE, PASTE_NEVER, Target
from patchmill.loaders import saliency
from patchmill.loaders.copypaste import backgrounds, masks
from patchmill.loaders.copypaste.mask_png import decode_mask, encode_mask
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.saliency.resample import resize
from patchmill.loaders.sources import Source

LONGEST = 256  # pixels of a mask, as `prepare masks` makes them


@dataclass(frozen=True)
class Pictures:
    """What there is to paste."""

    encoded: list[bytes]
    images: list[np.ndarray]
    pngs: list[bytes | None]  # of the masks that can be used
    planes: list[np.ndarray | None]
    behind: list[int]  # the image behind each

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Case:
    """One recipe's views of all images; planes are None where an image is not pasted."""

    rows: np.ndarray
    targets: Sequence[Target]
    planes: list[np.ndarray | None]
    grounds: list[np.ndarray | None]


def gathered(source: Source, count: int) -> Pictures:
    """At most so many, with the data's own masks, or RBD's; as they would be stored."""
    sample = Sample(source, count)
    images = [decode(data) for data in sample.encoded]
    made = _planes(source, sample.ids, images)
    pngs = [None if plane is None else encode_mask(_small(plane), bits=4) for plane in made]
    planes = [None if png is None else decode_mask(png, lambda: source.name) for png in pngs]
    shares = [None if p is None else float((p >= masks.FOREGROUND_LEVEL).mean()) for p in planes]
    behind = [
        backgrounds.least_foreground(
            i, backgrounds.candidates(0, 0, i, len(images)), shares.__getitem__
        )
        for i in range(len(images))
    ]
    return Pictures(sample.encoded, images, pngs, planes, behind)


def _planes(
    source: Source, ids: Sequence[int], images: Sequence[np.ndarray]
) -> list[np.ndarray | None]:
    if found := masks.open_masks(source):
        return [found.plane(id) for id in ids]
    estimate = saliency.estimator("rbd")
    made = [estimate(image, LONGEST) for image in images]
    return [None if one.degenerate else one.plane for one in made]


def _small(plane: np.ndarray) -> np.ndarray:
    shrink = min(1.0, LONGEST / max(plane.shape))
    height, width = (max(1, round(side * shrink)) for side in plane.shape)
    return resize(plane[:, :, None], height, width)[:, :, 0]


def case(views: Recipe, pictures: Pictures) -> Case:
    """All views, planned as a loader plans them."""
    shapes = [image.shape[:2] for image in pictures.images]
    rows = draw.draw(views, 0, 0, np.arange(len(pictures)), shapes).rows
    for row, plane in zip(rows, pictures.planes, strict=True):
        if plane is None:
            row["paste"] = PASTE_NEVER
    pasted, on_image = ((rows["paste"] != PASTE_NEVER).any(1), (rows["paste"] == ON_IMAGE).any(1))
    planes = [p if here else None for p, here in zip(pictures.planes, pasted, strict=True)]
    grounds = [
        pictures.images[other] if here else None
        for other, here in zip(pictures.behind, on_image, strict=True)
    ]
    return Case(rows, draw.targets(views), planes, grounds)
