"""`ViewBatch`: the views, ids, labels and decisions that a training loop receives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from patchmill.kernels.views.decisions import PASTE_NEVER, Target


@dataclass(frozen=True, eq=False)
class Geometry:
    """Position of one group's views in their images; tensors on the views' device."""

    box: torch.Tensor  # [B, count, 4] float32: x1, y1, x2, y2 of the view in source pixels
    flip: torch.Tensor  # [B, count] bool: flipped left to right
    turns: torch.Tensor  # [B, count] int64: counter-clockwise quarter turns, after the flip
    shape: torch.Tensor  # [B, 2] int64: height and width of the image


@dataclass(frozen=True, eq=False)
class ViewBatch:
    """One batch. `views` maps the recipe's group names to [B, count, 3, size, size] tensors.

    In memory a group is view-major, so that each crop is a contiguous [B, 3, size, size] tensor.
    """

    views: dict[str, torch.Tensor]
    ids: torch.Tensor  # [B] int64, on the CPU: the samples in the batch, substitutes included
    labels: torch.Tensor | None  # [B] int64, on the views' device
    rows: np.ndarray  # [B, V] of `kernels.views.decisions.ROW`: the decision rows of all views
    shapes: np.ndarray  # [B, 2] int32: height and width of the images
    targets: Sequence[Target]

    def __len__(self) -> int:
        return len(self.ids)

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
        """Views pasted on another background, by group: [B, count] bool on the views' device."""
        return {
            target.name: torch.from_numpy(rows["paste"] != PASTE_NEVER).to(
                self.views[target.name].device
            )
            for target, rows in self._groups()
        }

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
        box=torch.from_numpy(box.astype(np.float32)).to(device),
        flip=torch.from_numpy(rows["flip"] != 0).to(device),
        turns=torch.from_numpy(rows["turns"].astype(np.int64)).to(device),
        shape=torch.from_numpy(shapes.astype(np.int64)).to(device),
    )
