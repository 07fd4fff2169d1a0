"""Choose the samples of a sheet, and load their class names, images and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchmill.kernels.common.compiling import announce_compilation
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import masks
from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.order.permutation import Order
from patchmill.loaders.plan.draw import MAX_SIDE
from patchmill.loaders.sources import Source

MASK_SIDE = 256  # of masks made for a sheet, the default of `prepare masks`


@dataclass(frozen=True)
class Mask:
    """A sample's mask, or the reason why there is none."""

    plane: np.ndarray | None  # may be a degenerate one
    foreground: float = 0.0  # share of the pixels
    confidence: float | None = None  # if known
    why: str = ""  # the reason why training would not use it; empty if it would

    @property
    def usable(self) -> np.ndarray | None:
        return None if self.why else self.plane


@dataclass(frozen=True)
class MaskSource:
    """Masks from a file, from the data, or computed for the sheet."""

    title: str
    name: str
    get: Callable[[int, np.ndarray], Mask]  # by a sample's id and image
    foreground: Callable[[int], float | None]  # by id; None if the mask is not usable


def choose_ids(
    source: Source, count: int, seed: int, epoch: int, ids: Sequence[int] | None
) -> Sequence[int]:
    """Return `ids`, or the first of the epoch; raise a MillError if a sample does not exist."""
    if count < 1:
        raise MillError(f"count must be at least 1, not {count}")
    if ids is None:
        return Order(len(source), seed).ids(epoch, 0, min(count, len(source))).tolist()
    for id in ids:
        if not 0 <= id < len(source):
            raise MillError(f"{source.name} has the samples 0 to {len(source) - 1}, but no {id}")
    return ids


def class_name(source: Source, id: int) -> str:
    """The name of the sample's class; empty if it has none."""
    if source.labels is None or not source.classes:
        return ""
    return source.classes[int(source.labels[id])]


def decode_sample(source: Source, id: int) -> tuple[np.ndarray | None, str]:
    """Decode a sample; return the image, or None and the problem."""
    try:
        image = decode(source.read(id))
        if max(image.shape) > MAX_SIDE:
            raise BadImage(f"a side of {max(image.shape)} pixels is too long")
        return image, ""
    except (BadImage, OSError) as error:
        return None, getattr(error, "strerror", None) or str(error)


def open_mask_source(
    source: Source, method: str | None = None, path: str | Path | None = None
) -> MaskSource:
    """Open the masks of file `path`, or those that a loader would find; else compute them.

    They are always computed if `method` is given; its default is RBD.
    """
    existing = None if method else masks.open_masks(source, path)
    if existing is None:
        return _computed_masks(source, method or "rbd")

    def get(id: int, image: np.ndarray) -> Mask:
        mask = existing.lookup(id)
        confidence = float(existing.file.confidences[id]) if existing.file else None
        return Mask(mask.plane, mask.foreground, confidence, mask.why)

    estimator = existing.estimator
    title = masks.describe_estimator(estimator) if estimator else "the data's own"
    return MaskSource(title, existing.name, get, existing.foreground)


def _computed_masks(source: Source, method: str) -> MaskSource:
    from patchmill.loaders.copypaste.mask_png import decode_mask, encode_mask
    from patchmill.loaders.saliency import estimator

    estimate = estimator(method)

    def get(id: int, image: np.ndarray) -> Mask:
        with announce_compilation():
            saliency = estimate(image, MASK_SIDE)
        # Rounded to the 16 levels of a mask file.
        plane = decode_mask(encode_mask(saliency.plane, bits=4), lambda: source.where(id))
        return Mask(plane, saliency.foreground, saliency.confidence, saliency.why)

    def foreground(id: int) -> float | None:
        image, _ = decode_sample(source, id)
        mask = Mask(None) if image is None else get(id, image)
        return None if mask.usable is None else float(np.float32(mask.foreground))  # as in a file

    return MaskSource(masks.describe_estimator(estimate.metadata()), source.name, get, foreground)
