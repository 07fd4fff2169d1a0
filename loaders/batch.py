"""`ViewBatch`: the views, ids, labels and decisions that a training loop receives.

It supports the access patterns of common training loops: `crops, labels = batch` as a pair,
`batch["global"]` and `dict(batch)` as a mapping, `batch.to(device)` and `batch.pin_memory()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from patchmill.kernels.common.upload import upload
from patchmill.kernels.views.decisions import PASTE_NEVER, Target


@dataclass(frozen=True, eq=False)
class Geometry:
    """Geometry of one group's views within their images; tensors on the views' device."""

    box: torch.Tensor  # [B, count, 4] float32: x1, y1, x2, y2 of the view in source pixels
    flip: torch.Tensor  # [B, count] bool: flipped left to right
    turns: torch.Tensor  # [B, count] int64: counter-clockwise quarter turns, after the flip
    shape: torch.Tensor  # [B, 2] int64: height and width of the image


@dataclass(eq=False, repr=False)
class ViewBatch:
    """One batch. `views` maps the recipe's group names to [B, count, 3, size, size] tensors.

    In memory, a group is view-major: each crop is a contiguous [B, 3, size, size] tensor, and
    `flat(group)` is contiguous, too. For `views[group].view(...)`, call `contiguous()` first, which
    copies.
    """

    views: dict[str, torch.Tensor]
    ids: torch.Tensor  # [B] int64, on the CPU: the samples in the batch, substitutes included
    labels: torch.Tensor | None  # [B] int64 on the views' device; float32 [B, classes] if mixed
    rows: np.ndarray  # [B, V] of `kernels.views.decisions.ROW`: the decision rows of all views
    shapes: np.ndarray  # [B, 2] int32: height and width of the images
    targets: Sequence[Target]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        groups = ", ".join(f"{g.shape[1]} x {g.shape[-1]}px {n}" for n, g in self.views.items())
        example = next(iter(self.views.values()))
        kind = f"{str(example.dtype).removeprefix('torch.')} on {example.device}"
        labels = "without labels" if self.labels is None else "with labels"
        return f"ViewBatch({len(self)} images: {groups}; {kind}, {labels})"

    def __iter__(self) -> Iterator[Any]:
        """All crops and the labels, for `crops, labels = batch`."""
        return iter((self.crops(), self.labels))

    def keys(self) -> list[str]:
        """Keys of `dict(batch)`: the view groups, `ids`, and `labels` if there are any."""
        return [*self.views, "ids", *(["labels"] if self.labels is not None else [])]

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __getitem__(self, key: str) -> torch.Tensor:
        """A view group's tensor, `ids` or `labels`."""
        if key in self.views:
            return self.views[key]
        if key in self:
            return getattr(self, key)
        unpack = "" if isinstance(key, str) else ": unpack it, as crops, labels = batch"
        raise KeyError(f"a batch with {', '.join(self.keys())} has no {key!r}{unpack}")

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ViewBatch:
        """The batch with its views and labels on a device; ids stay on the CPU."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> ViewBatch:
        """The batch in page-locked memory, unless it is on a GPU already."""
        return self._with(lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())

    def crops(self) -> list[torch.Tensor]:
        """All views as [B, 3, size, size], group by group, as DINO-style code expects them."""
        return [crop for group in self.views.values() for crop in group.unbind(1)]

    def flat(self, group: str) -> torch.Tensor:
        """All views of a group as [count * B, 3, size, size], view-major, without a copy."""
        return self.views[group].transpose(0, 1).flatten(0, 1)

    @cached_property
    def geometry(self) -> dict[str, Geometry]:
        """Source boxes, flips and quarter turns of every view, by group."""
        return {
            target.name: _geometry(rows, self.shapes, target, self.views[target.name].device)
            for target, rows in self._groups()
        }

    @cached_property
    def pasted(self) -> dict[str, torch.Tensor]:
        """Bool [B, count] tensors by group: True for views pasted on another background."""
        return {
            target.name: upload(
                torch.from_numpy(rows["paste"] != PASTE_NEVER), self.views[target.name].device
            )
            for target, rows in self._groups()
        }

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> ViewBatch:
        """The batch with changed views and labels."""
        views = {name: change(group) for name, group in self.views.items()}
        labels = None if self.labels is None else change(self.labels)
        return replace(self, views=views, labels=labels)

    def _groups(self) -> Iterator[tuple[Target, np.ndarray]]:
        """Each view group and its decision rows [B, count]."""
        start = 0
        for target in self.targets:
            yield target, self.rows[:, start : start + target.count]
            start += target.count


def _geometry(
    rows: np.ndarray, shapes: np.ndarray, target: Target, device: torch.device
) -> Geometry:
    y, x = rows["win_y"].astype(np.float32), rows["win_x"].astype(np.float32)
    step_y, step_x = rows["box_h"] / rows["full_h"], rows["box_w"] / rows["full_w"]
    left, top = rows["box_x"] + x * step_x, rows["box_y"] + y * step_y
    box = np.stack([left, top, left + target.size * step_x, top + target.size * step_y], -1)
    return Geometry(
        box=upload(torch.from_numpy(box.astype(np.float32)), device),
        flip=upload(torch.from_numpy(rows["flip"] != 0), device),
        turns=upload(torch.from_numpy(rows["turns"].astype(np.int64)), device),
        shape=upload(torch.from_numpy(shapes.astype(np.int64)), device),
    )
