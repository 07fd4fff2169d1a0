"""`Mix`: mixup and CutMix of the images of a batch, with soft labels, distributed as in timm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from patchmill.loaders.common import settings
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.settings import Bounds
from patchmill.loaders.operations.draws import to_device
from patchmill.loaders.plan import streams

if TYPE_CHECKING:
    from patchmill.loaders.sources import Source
    from patchmill.loaders.sources.stream.source import StreamSource

_TRIES = 24  # for a gamma variate; each succeeds with a probability of at least 95 %

Share = Annotated[float, Bounds(0, 1)]


@dataclass(frozen=True)
class Mix:
    """Mix every sample with the one at the other end of its batch (mixup, CutMix).

    `loaders.build(..., mix=Mix(classes=1000))` mixes all views of a batch and makes its labels
    float32 [B, classes]. Each of a sample's views is mixed with the same view of its partner, with
    the same weight. The names in timm.data.Mixup are in brackets.
    """

    classes: Annotated[int, Bounds(2)]  # [num_classes]
    mixup: Annotated[float, Bounds(0)] = 0.8  # alpha of mixup; 0 for none [mixup_alpha]
    cutmix: Annotated[float, Bounds(0)] = 1.0  # alpha of CutMix; 0 for none [cutmix_alpha]
    p: Share = 1.0  # probability of mixing at all [prob]
    switch_p: Share = 0.5  # of CutMix rather than mixup, if both are on [switch_prob]
    # One weight per batch, drawn for the first sample's id, or one per sample, for its own id.
    mode: Literal["batch", "element"] = "batch"  # [mode: batch, elem]
    smoothing: Share = 0.1  # of labels [label_smoothing]

    def __post_init__(self) -> None:
        for name, annotation in settings.field_annotations(Mix).items():
            value = settings.checked(annotation, getattr(self, name), f"Mix: {name}")
            object.__setattr__(self, name, value)
        if not (self.mixup or self.cutmix):
            raise MillError("Mix: mixup and cutmix are both 0: omit mix, or set one of them")

    def decide(self, seed: int, epoch: int, ids: np.ndarray) -> Mixing:
        """Draw the decisions for a batch of these samples."""
        drawn = ids if self.mode == "element" else ids[:1]
        numbers = _numbers(seed, epoch, drawn)
        mixes, cuts = numbers[:, 0] < self.p, numbers[:, 1] < self.switch_p
        if not (self.mixup and self.cutmix):
            cuts[:] = bool(self.cutmix)
        alpha = np.where(cuts, self.cutmix, self.mixup)
        weight = np.where(mixes, _beta(alpha, numbers[:, 4:]), 1.0)
        decided = Mixing(weight, cuts & (weight < 1), numbers[:, 2:4])
        return decided if self.mode == "element" else decided.repeated(len(ids))

    def soft_labels(self, labels: Tensor, mixing: Mixing, size: int) -> Tensor:
        """Labels float32 [B, classes] of a batch whose first views have this size."""
        low = self.smoothing / self.classes
        classes = torch.arange(self.classes, device=labels.device)
        own = (labels[:, None] == classes).float().mul_(1 - self.smoothing).add_(low)
        weight = to_device(mixing.kept(size).astype(np.float32), labels.device)[:, None]
        return own * weight + own.flip(0) * (1 - weight)

    def __call__(
        self, images: Tensor, labels: Tensor, ids: Tensor | np.ndarray, *, seed: int, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Mix images [B, 3, h, w] and labels [B] of a loader not made by `build`.

        Images are changed in place; the draws depend on `ids`, the samples' numbers.
        """
        mixing = self.decide(seed, epoch, np.asarray(ids, np.int64))
        mix_views({"images": images[:, None]}, mixing)
        return images, self.soft_labels(labels, mixing, images.shape[-1])


def checked_mix(mix: Mix | None, source: Source | StreamSource) -> Mix | None:
    """Return `mix`, or raise a MillError if it does not suit the data's labels."""
    if mix is None:
        return None
    if not isinstance(mix, Mix):
        raise MillError(f"mix must be an operations.Mix such as Mix(classes=1000), not {mix!r}")
    labels = source.labels
    if source.sample_count is not None and labels is None:
        raise MillError(f"mix makes soft labels, but {source.name} has no labels: omit it")
    if labels is not None and len(labels) and int(labels.max()) >= mix.classes:
        raise MillError(
            f"mix has {mix.classes} classes, but {source.name} has the label {int(labels.max())}: "
            "set classes to the number of classes"
        )
    return mix


@dataclass(frozen=True, eq=False)
class Mixing:
    """Decisions for the B samples of a batch; the partner of sample i is sample B - 1 - i."""

    weight: np.ndarray  # [B] float64 of the sample itself, before boxes are rounded and clipped
    cut: np.ndarray  # [B] bool: CutMix, else mixup
    centre: np.ndarray  # [B, 2] of the box: y and x, as shares of the view

    def repeated(self, count: int) -> Mixing:
        return Mixing(*(np.repeat(part, count, 0) for part in (self.weight, self.cut, self.centre)))

    @property
    def alike(self) -> bool:
        """True if all samples have the same decisions."""
        return bool(
            (self.weight == self.weight[:1]).all() and (self.centre == self.centre[:1]).all()
        )

    def box(self, slot: int, size: int) -> tuple[slice, slice]:
        """Rows and columns that a sample's view takes from its partner's."""
        side = int(size * math.sqrt(1 - self.weight[slot]))
        y, x = (int(size * share) for share in self.centre[slot])
        rows, columns = (
            slice(max(at - side // 2, 0), min(at + (side + 1) // 2, size)) for at in (y, x)
        )
        return rows, columns

    def kept(self, size: int) -> np.ndarray:
        """Weight of each sample's own label; for CutMix, its own share of the view."""
        kept = self.weight.copy()
        for slot in np.flatnonzero(self.cut).tolist():
            rows, columns = self.box(slot, size)
            area = (rows.stop - rows.start) * (columns.stop - columns.start)
            kept[slot] = 1 - area / (size * size)
        return kept


@torch.no_grad()
def mix_views(views: Mapping[str, Tensor], mixing: Mixing) -> None:
    """Mix the groups [B, count, 3, size, size] of a batch in place, one view at a time."""
    if (mixing.weight == 1).all():
        return
    for group in views.values():
        for view in group.unbind(1):
            _mix_view(view, mixing)


def _mix_view(view: Tensor, mixing: Mixing) -> None:
    """Mix one view [B, 3, size, size] of all samples in place."""
    other, size = view.flip(0), view.shape[-1]
    if mixing.alike and mixing.cut[0]:
        rows, columns = mixing.box(0, size)
        view[..., rows, columns] = other[..., rows, columns]
        return
    weight = np.where(mixing.cut, 1.0, mixing.weight).astype(np.float32)
    if (weight < 1).any():
        share = to_device(weight, view.device)[:, None, None, None]
        mixed = view * share + other * (1 - share)
        view.copy_(mixed.round_() if view.dtype == torch.uint8 else mixed)
    for slot in np.flatnonzero(mixing.cut).tolist():
        rows, columns = mixing.box(slot, size)
        view[slot, :, rows, columns] = other[slot, :, rows, columns]


# ------------------------------------------------------------------------------------------- draws


def _numbers(seed: int, epoch: int, ids: np.ndarray) -> np.ndarray:
    """Uniform numbers per sample: mix or not, switch, y, x, and those for two gamma variates."""
    keys = np.empty((len(ids), 2), np.uint64)
    views = np.zeros(len(ids), np.int64)
    streams.stream_keys(np.uint64(seed), epoch, ids, views, streams.MIX, 0, keys)
    numbers = np.empty((len(ids), 4 + 2 * (3 * _TRIES + 1)), np.float32)
    streams.fill(keys, numbers)
    return numbers.astype(np.float64)


def _beta(alpha: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Beta(alpha, alpha) variates: G / (G + H) for two gamma variates."""
    one, other = np.split(numbers, 2, axis=1)
    return 1 / (1 + np.exp(np.clip(_log_gamma(alpha, other) - _log_gamma(alpha, one), -700, 700)))


def _log_gamma(alpha: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Logarithms of Gamma(alpha, 1) variates, by Marsaglia and Tsang (2000) for alpha + 1.

    G(alpha) = G(alpha + 1) U^(1 / alpha). With d = alpha + 2/3, c = 1 / sqrt(9 d) and a normal x,
    v = (1 + c x)^3 is accepted if ln U < x^2 / 2 + d - d v + d ln v; then G(alpha + 1) = d v.
    """
    d = alpha[:, None] + 2 / 3
    log_u, angle, radius = np.split(numbers[:, 1:], 3, axis=1)
    x = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * math.pi * angle)
    v = (1 + x / np.sqrt(9 * d)) ** 3
    positive = np.where(v > 0, v, 1.0)
    bound = x**2 / 2 + d - d * positive + d * np.log(positive)
    accepted = (v > 0) & (np.log1p(-log_u) < bound)
    first = accepted.argmax(1)
    log_v = np.log(positive[np.arange(len(v)), first])
    return np.log(d[:, 0]) + log_v + np.log1p(-numbers[:, 0]) / alpha
