"""A recipe's custom operations, applied to finished views a part at a time, and batch mixing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchmill.kernels.views.decisions import Target
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.operation import Operation
from patchmill.loaders.operations.draws import Draws, to_device
from patchmill.loaders.operations.mix import Mix, mix_views
from patchmill.loaders.operations.values import from_unit, overwrite_with_unit
from patchmill.loaders.plan import streams
from patchmill.loaders.plan.laws import targets
from patchmill.loaders.recipe import Recipe, Views, chance_of

# Bytes of float32 views processed at a time: what fits into a core's cache, or enough for a GPU.
_PART_BYTES = {"cpu": 1 << 20, "cuda": 256 << 20}
_TRIED = 3  # views on which each operation is tried when a loader is built


@dataclass(frozen=True, eq=False)
class ExtraGroup:
    """A view group with operations, and the index of its first view in the recipe."""

    views: Views
    target: Target
    first: int

    def chances(self, operation: Operation) -> np.ndarray:
        """Probability of the operation for each view; cells of a grid have that of the grid."""
        each = self.views.total // self.views.count
        return np.array([chance_of(operation.p, v // each) for v in range(self.views.total)])


class Extra:
    """Operations of all groups of a recipe, followed by the mixing of a batch.

    A view gets the same draws in any part of any batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
        mix: Mix | None = None,
    ) -> None:
        self._seed, self._dtype, self._device, self._mix = seed, dtype, device, mix
        self.groups, first = list[ExtraGroup](), 0
        for views, target in zip(recipe.views, targets(recipe), strict=True):
            if views.extra:
                self.groups.append(ExtraGroup(views, target, first))
            first += views.total
        numbers = sum(3 * g.target.size**2 * g.target.count for g in self.groups)
        self.part = max(_PART_BYTES[device.type] // (4 * max(numbers, 1)), 1)  # samples

    def parts(self, size: int) -> list[slice]:
        """Split a batch of `size` samples into parts."""
        return [slice(start, min(start + self.part, size)) for start in range(0, size, self.part)]

    def try_out(self) -> None:
        """Apply every operation to a few grey views, so that errors show before the first batch."""
        ids, columns = np.arange(_TRIED), np.zeros(_TRIED, np.int64)
        for group in self.groups:
            side = group.target.size
            grey = torch.full((_TRIED, 3, side, side), 0.5, device=self._device)
            for index, operation in enumerate(group.views.extra):
                views = from_unit(grey, group.target, self._dtype)
                self._change(views, group, index, operation, 0, ids, columns)

    @torch.no_grad()
    def apply(
        self, views: Mapping[str, Tensor], epoch: int, ids: np.ndarray, part: slice = slice(None)
    ) -> None:
        """Change a part of a batch in place; `views` and `ids` are those of the whole batch."""
        for group in self.groups:
            of_part = views[group.target.name][part]
            for index, operation in enumerate(group.views.extra):
                slots, columns = np.nonzero(self.happens(group, index, epoch, ids[part]))
                if len(slots):
                    at = to_device(slots, self._device), to_device(columns, self._device)
                    of_part[at] = self._change(
                        of_part[at], group, index, operation, epoch, ids[part][slots], columns
                    )

    def finish(self, views: Mapping[str, Tensor], epoch: int, ids: np.ndarray) -> None:
        """Mix a batch in place after all of its parts are done."""
        if self._mix is not None:
            mix_views(views, self._mix.decide(self._seed, epoch, ids))

    def happens(self, group: ExtraGroup, index: int, epoch: int, ids: np.ndarray) -> np.ndarray:
        """bool [B, count]: the views that an operation of the group is applied to."""
        count = group.target.count
        draws = self._draws(
            group, index, epoch, np.repeat(ids, count), np.tile(np.arange(count), len(ids))
        )
        chances = group.chances(group.views.extra[index])
        return draws.numbers().reshape(len(ids), count) < chances

    def happened(self, epoch: int, id: int) -> dict[str, list[tuple[str, np.ndarray]]]:
        """Operations of each group for one sample, and the views that they are applied to."""
        ids = np.array([id])
        return {
            group.target.name: [
                (operation.kind, self.happens(group, index, epoch, ids)[0])
                for index, operation in enumerate(group.views.extra)
            ]
            for group in self.groups
        }

    def _change(
        self,
        views: Tensor,
        group: ExtraGroup,
        index: int,
        operation: Operation,
        epoch: int,
        ids: np.ndarray,
        columns: np.ndarray,
    ) -> Tensor:
        """Apply the operation to views [N, 3, h, w] of these samples and columns, in place."""
        draws = self._draws(group, index, epoch, ids, columns, calls=1)
        if operation.normalised:
            return _checked(operation(views, draws), views, group, operation)
        unit = overwrite_with_unit(views, group.target)
        changed = _checked(operation(unit, draws), unit, group, operation)
        return from_unit(changed, group.target, self._dtype)

    def _draws(
        self,
        group: ExtraGroup,
        index: int,
        epoch: int,
        ids: np.ndarray,
        columns: np.ndarray,
        calls: int = 0,
    ) -> Draws:
        """Draws for views in these columns of a group; call 0 decides if the operation applies."""
        number, views = streams.EXTRA + index, group.first + columns
        return Draws(group.target, self._seed, epoch, ids, views, number, self._device, calls)


def open_extra(
    recipe: Recipe,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
    mix: Mix | None = None,
) -> Extra | None:
    """The recipe's operations, tried out, and mixing; None if there is neither."""
    if mix is None and not any(group.extra for group in recipe.views):
        return None
    extra = Extra(recipe, seed, dtype, device, mix)
    extra.try_out()
    return extra


class Parts:
    """Progress of a batch's parts, which are completed by finished samples."""

    def __init__(self, extra: Extra, size: int) -> None:
        self._part, self._slices = extra.part, extra.parts(size)
        self._left = [part.stop - part.start for part in self._slices]
        self._parts_left = len(self._slices)
        self._lock = threading.Lock()

    def completed_by(self, slots: range) -> list[slice]:
        """The parts that are complete now that these slots are finished."""
        completed = []
        with self._lock:
            for number in range(slots.start // self._part, (slots.stop - 1) // self._part + 1):
                part = self._slices[number]
                self._left[number] -= min(slots.stop, part.stop) - max(slots.start, part.start)
                if not self._left[number]:
                    completed.append(part)
        return completed

    def finish(self) -> bool:
        """Report a part whose operations have been applied; True for the last one."""
        with self._lock:
            self._parts_left -= 1
            return not self._parts_left


def _checked(changed: Tensor, views: Tensor, group: ExtraGroup, operation: Operation) -> Tensor:
    """Check that an operation returned views like those it got."""
    wanted = f"{_description(views)}, like its input"
    where = f"views {group.target.name!r}: the operation {operation.kind}"
    if not isinstance(changed, Tensor):
        raise MillError(f"{where} returned {type(changed).__name__} and must return {wanted}")
    if (changed.shape, changed.dtype, changed.device) != (views.shape, views.dtype, views.device):
        raise MillError(f"{where} returned {_description(changed)}, and must return {wanted}")
    return changed


def _description(tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"a {dtype} tensor of shape {tuple(tensor.shape)} on {tensor.device}"
