"""Whose a row is: groups as offsets [B + 1] into the rows, or into an order [P] of them.

What is wrong is found where the numbers are. So counts or an index on a GPU are waited for there;
counts on the CPU are not.
"""

from __future__ import annotations

import torch

from patchmill.kernels.common.jit import announce_compilation, jit_ieee


@torch.library.custom_op("patchmill::patch_offsets", mutates_args=())
def offsets_of(counts: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """Of groups that lie one after another, on the device of the embeddings."""
    least, total = (int(counts.min()), int(counts.sum())) if len(counts) else (0, 0)
    if least < 0 or total != len(embeddings):
        raise ValueError(
            f"aggregate's counts sum to {total} (the least is {least}) beside {len(embeddings)} "
            "embeddings: give the number of patches of each image, in their order"
        )
    offsets = counts.new_zeros(len(counts) + 1)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets.to(embeddings.device, non_blocking=embeddings.is_cuda)


@offsets_of.register_fake
def _(counts: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    return counts.new_empty(len(counts) + 1, device=embeddings.device)


def owners(offsets: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """The index of rows that lie group after group."""
    groups = torch.arange(len(offsets) - 1, device=offsets.device)
    return groups.repeat_interleave(offsets.diff(), output_size=len(embeddings))


@torch.library.custom_op("patchmill::patch_order", mutates_args=())
def ordered(index: torch.Tensor, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets, and the order: rows by their group, and within it as they came."""
    low, high, rising = _facts(index)
    if low < 0 or high >= images:
        raise ValueError(
            f"aggregate's index runs from {low} to {high}, which are not all among {images} "
            "images: give each patch the number of its image"
        )
    if not index.is_cuda:
        return _counted(index, images)
    if rising:
        values, order = index, torch.arange(len(index), device=index.device)
    else:
        values, order = index.sort(stable=True)
    bounds = torch.arange(images + 1, device=index.device)
    return torch.searchsorted(values, bounds), order


@ordered.register_fake
def _(index: torch.Tensor, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    return index.new_empty(images + 1), index.new_empty(len(index))


def _facts(index: torch.Tensor) -> tuple[int, int, bool]:
    """The least, the largest, and whether none is less than the one before: one wait for all."""
    if not len(index):
        return 0, -1, True
    rising = (index[1:] >= index[:-1]).all()
    low, high, flag = torch.stack([*index.aminmax(), rising.to(index.dtype)]).tolist()
    return low, high, bool(flag)


def _counted(index: torch.Tensor, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    offsets, order = index.new_zeros(images + 1), torch.empty_like(index)
    with announce_compilation():
        count_out(index.numpy(), offsets.numpy(), order.numpy())
    return offsets, order


@jit_ieee
def count_out(index, offsets, order):  # type: ignore[no-untyped-def]
    """A stable counting sort."""
    for group in index:
        offsets[group + 1] += 1
    for group in range(1, len(offsets)):
        offsets[group] += offsets[group - 1]
    free = offsets[:-1].copy()
    for place in range(len(index)):
        order[free[index[place]]] = place
        free[index[place]] += 1
