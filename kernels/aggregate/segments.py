"""Segments of rows: offsets [B + 1] into the rows, or into an order [P] that sorts them by image.

Counts and index are validated on their own device, which synchronises on a GPU; counts on the CPU
cost no synchronisation.
"""

from __future__ import annotations

import torch

from patchmill.kernels.aggregate.cpu_loops import counting_sort
from patchmill.kernels.common.compiling import announce_compilation
from patchmill.kernels.common.upload import upload


@torch.library.custom_op("patchmill::aggregate_offsets", mutates_args=())
def offsets_of_counts(counts: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """Offsets of consecutive segments, on the device of the embeddings."""
    least, total = (int(counts.min()), int(counts.sum())) if len(counts) else (0, 0)
    if least < 0 or total != len(embeddings):
        raise ValueError(
            f"aggregate's counts sum to {total} (the least is {least}) but there are "
            f"{len(embeddings)} embeddings: pass the number of patches of each image, in order"
        )
    offsets = counts.new_zeros(len(counts) + 1)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets if offsets.is_cuda else upload(offsets, embeddings.device)


@offsets_of_counts.register_fake
def _(counts: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    return counts.new_empty(len(counts) + 1, device=embeddings.device)


def index_of_offsets(offsets: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """Image of each row, for consecutive segments."""
    groups = torch.arange(len(offsets) - 1, device=offsets.device)
    return groups.repeat_interleave(offsets.diff(), output_size=len(embeddings))


@torch.library.custom_op("patchmill::aggregate_order", mutates_args=())
def sort_by_index(index: torch.Tensor, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets [images + 1], and the order [P]: rows sorted by their image (stable)."""
    low, high, ascending = _range_and_order(index)
    if low < 0 or high >= images:
        raise ValueError(
            f"aggregate's index runs from {low} to {high}, but there are {images} images: pass "
            "each patch's image, counted from 0"
        )
    if not index.is_cuda:
        return _sort_on_cpu(index, images)
    if ascending:
        values, order = index, torch.arange(len(index), device=index.device)
    else:
        values, order = index.sort(stable=True)
    bounds = torch.arange(images + 1, device=index.device)
    return torch.searchsorted(values, bounds), order


@sort_by_index.register_fake
def _(index: torch.Tensor, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    return index.new_empty(images + 1), index.new_empty(len(index))


def _range_and_order(index: torch.Tensor) -> tuple[int, int, bool]:
    """Minimum, maximum, and whether the index is ascending; synchronises once."""
    if not len(index):
        return 0, -1, True
    ascending = (index[1:] >= index[:-1]).all()
    low, high, flag = torch.stack([*index.aminmax(), ascending.to(index.dtype)]).tolist()
    return low, high, bool(flag)


def _sort_on_cpu(index: torch.Tensor, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    offsets, order = index.new_zeros(images + 1), torch.empty_like(index)
    with announce_compilation():
        counting_sort(index.numpy(), offsets.numpy(), order.numpy())
    return offsets, order
