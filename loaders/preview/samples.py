"""What a sheet is made of: which samples, with their names and images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchmill.kernels.common.jit import announce_compilation
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import masks
from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.order.permutation import Order
from patchmill.loaders.plan.draw import MAX_SIDE
from patchmill.loaders.sources import Source

MASK_SIDE = 256  # of masks that are made for a sheet, as `prepare masks` makes them


@dataclass(frozen=True)
class Mask:
    """What of an image is foreground, or why that is not known."""

    plane: np.ndarray | None  # there may be one that training would not use
    foreground: float = 0.0
    confidence: float | None = None  # where it is known
    why: str = ""  # training would not use it

    @property
    def usable(self) -> np.ndarray | None:
        return None if self.why else self.plane


@dataclass(frozen=True)
class Masker:
    """Where the masks of a sheet come from."""

    title: str
    name: str
    look: Callable[[int, np.ndarray], Mask]  # of a sample and its image
    share: Callable[[int], float | None]  # of a sample's foreground; None: its mask is of no use


def chosen(
    source: Source, count: int, seed: int, epoch: int, ids: Sequence[int] | None
) -> Sequence[int]:
    """The ids, or the first of the epoch; a MillError where there are no such samples."""
    if count < 1:
        raise MillError(f"count must be at least 1, not {count}")
    if ids is None:
        return Order(len(source), seed).ids(epoch, 0, min(count, len(source))).tolist()
    for id in ids:
        if not 0 <= id < len(source):
            raise MillError(f"{source.name} has the samples 0 to {len(source) - 1}, but no {id}")
    return ids


def label_of(source: Source, id: int) -> str:
    """The name of its class; empty where it has none."""
    if source.labels is None or not source.classes:
        return ""
    return source.classes[int(source.labels[id])]


def image_of(source: Source, id: int) -> tuple[np.ndarray | None, str]:
    """The image, or what is wrong with it."""
    try:
        image = decode(source.read(id))
        if max(image.shape) > MAX_SIDE:
            raise BadImage(f"a side of {max(image.shape)} pixels is too long")
        return image, ""
    except (BadImage, OSError) as error:
        return None, getattr(error, "strerror", None) or str(error)


def masker(source: Source, method: str | None = None, path: str | Path | None = None) -> Masker:
    """The masks that a loader would find, or made here by the method: RBD if there are none.

    Those of the file `path`, where one is named.
    """
    found = None if method else masks.open_masks(source, path)
    if found is None:
        return _maker(source, method or "rbd")

    def look(id: int, image: np.ndarray) -> Mask:
        seen = found.lookup(id)
        confidence = float(found.file.confidences[id]) if found.file else None
        return Mask(seen.plane, seen.foreground, confidence, seen.why)

    title = masks.describe_estimator(found.estimator) if found.estimator else "the data's own"
    return Masker(title, found.name, look, found.foreground)


def _maker(source: Source, method: str) -> Masker:
    from patchmill.loaders.copypaste.mask_png import decode_mask, encode_mask
    from patchmill.loaders.saliency import estimator

    estimate = estimator(method)

    def look(id: int, image: np.ndarray) -> Mask:
        with announce_compilation():
            made = estimate(image, MASK_SIDE)
        plane = decode_mask(encode_mask(made.plane, bits=4), lambda: source.where(id))
        return Mask(plane, made.foreground, made.confidence, made.why)

    def share(id: int) -> float | None:
        image, _ = image_of(source, id)
        mask = Mask(None) if image is None else look(id, image)
        return None if mask.usable is None else float(np.float32(mask.foreground))  # as in a file

    return Masker(masks.describe_estimator(estimate.metadata()), source.name, look, share)
