"""Launch plan of a batch: which kernels, on how many blocks, with which arguments."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import Target
from patchmill.kernels.views.gpu import tables
from patchmill.kernels.views.gpu.blur import blur
from patchmill.kernels.views.gpu.colour import contrast
from patchmill.kernels.views.gpu.filters import weigh
from patchmill.kernels.views.gpu.resize import resize
from patchmill.kernels.views.gpu.tables import Images, Variant

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)

# By tile side: warps, and source pixels per step of the filter's matrix products.
SHAPES = {
    16: {"num_warps": 1, "TAPS_Y": 16, "TAPS_X": 32},
    32: {"num_warps": 2, "TAPS_Y": 16, "TAPS_X": 32},
}
# For blur, whose usual radii need a single step of rows; narrow loads need more registers for it.
BLUR_SHAPES = {
    16: {"num_warps": 1, "TAPS_Y": 16, "TAPS_X": 16},
    32: {"num_warps": 2, "TAPS_Y": 32, "TAPS_X": 16},
}
ALIGNED_BLUR = {32: {"TAPS_Y": 64, "num_stages": 2, "maxnreg": 128}}
# Bytes of planes that pass from kernel to kernel within the L2 cache: an H100 has 50 MB, whose two
# halves may both hold what is read, next to the images and the batch in transit.
CACHED_PLANES = 32 << 20
# With more registers, too few warps fit on a multiprocessor to hide memory latency.
COMPILER = {"num_stages": 1, "maxnreg": 168, "enable_fp_fusion": True}
# Four warps per scheduler instead of three, for kernels that need few registers.
FOUR_WARPS = {"maxnreg": 128}


class Launch(NamedTuple):
    """One kernel with its arguments; call it to launch on the current stream."""

    kernel: Any
    blocks: int
    arguments: dict[str, Any]

    def __call__(self) -> None:
        self.kernel[(self.blocks,)](**self.arguments)


def launches(
    out: torch.Tensor,
    images: Images,
    rows: np.ndarray,
    targets: Sequence[Target],
    channels_last: bool = False,
) -> list[Launch]:
    """The launches that fill `out`, in order; uploads their tables."""
    tables.check(images, rows, targets)
    batch, views = rows.shape
    if out.dtype not in DTYPES or out.shape != (layout.elements(targets, batch),):
        raise ValueError(
            f"the batch needs {layout.elements(targets, batch)} elements of float32, float16, "
            f"bfloat16 or uint8, not {tuple(out.shape)} of {out.dtype}"
        )
    chunk = chunk_images(rows, targets)
    variants = tables.variants(rows, targets, images.masks is not None, chunk)
    filter_table, numbers = tables.filter_table(rows, targets)
    uploaded = iter(
        tables.upload(
            [
                tables.image_table(images),
                tables.paste_table(images),
                tables.slot_table(targets, batch, chunk, out.dtype == torch.uint8),
                np.ascontiguousarray(rows).view(np.int32),
                filter_table,
                *(array for variant in variants for array in variant.arrays.values()),
            ],
            out.device,
        )
    )
    image_table, paste_table, slots, decisions, filters_of_rows = itertools.islice(uploaded, 5)
    weights = torch.empty(numbers, dtype=torch.float16, device=out.device)
    needs_planes = any(any(variant.contrast.blocks + variant.blur.blocks) for variant in variants)
    elements = layout.elements(targets, chunk) if needs_planes else 0
    planes = torch.empty(elements, dtype=torch.float16, device=out.device)
    shared = {"rows": decisions, "slots": slots, "n_views": views}
    target = {"out": out, "planes": planes}
    filters = {"filter_table": filters_of_rows, "weights": weights}

    first: list[Launch] = []
    chunks: list[list[Launch]] = [[] for _ in range(0, batch, chunk)]
    for variant in variants:
        on_device = dict(zip(variant.arrays, uploaded, strict=False))
        tiles = batch * views * variant.max_tiles if any(variant.contrast.blocks) else 0
        luma_sums = torch.empty(tiles, dtype=torch.float32, device=out.device)
        luma = {"luma_sums": luma_sums, "max_tiles": variant.max_tiles}
        (weigh_blocks,), (blocks_per_image,) = variant.weigh.blocks, variant.resize.blocks
        sources = {"images": image_table, "paste_table": paste_table, **filters, **target, **luma}
        entries = {of: on_device[f"{of}_entries"] for of in ("contrast", "blur")}
        weigh_with, resize_with, contrast_with, blur_with = (
            {
                **shared,
                "groups": on_device[kernel.__name__],
                "n_groups": variant.resize.groups.shape[1],
                **arguments,
                **constants(kernel, variant, channels_last),
            }
            for kernel, arguments in (
                (weigh, {**filters, "blocks_per_image": weigh_blocks}),
                (resize, {**sources, "blocks_per_image": blocks_per_image}),
                (contrast, {"entries": entries["contrast"], **target, **luma}),
                (blur, {"entries": entries["blur"], **target}),
            )
        )
        first.append(Launch(weigh, batch * weigh_blocks, weigh_with))
        for number, plan in enumerate(chunks):
            place = {"first_sample": number * chunk}
            count = min(chunk, batch - number * chunk)
            plan.append(Launch(resize, count * blocks_per_image, resize_with | place))
            place["chunk"] = number
            if blocks := variant.contrast.blocks[number]:
                plan.append(Launch(contrast, blocks, contrast_with | place))
            if blocks := variant.blur.blocks[number]:
                plan.append(Launch(blur, blocks, blur_with | place))
    return [*first, *itertools.chain.from_iterable(chunks)]


def chunk_images(rows: np.ndarray, targets: Sequence[Target]) -> int:
    """Images per chunk, such that its planes stay in the L2 cache from pass to pass.

    All images if no view has planes. Chunks are as even as possible.
    """
    batch = max(len(rows), 1)
    if not tables.needs_planes(rows, targets):
        return batch
    most = max(CACHED_PLANES // (2 * layout.elements(targets, 1)), 1)
    return -(-batch // -(-batch // most))


def constants(kernel: Any, variant: Variant, channels_last: bool) -> dict[str, Any]:
    """Compile-time arguments and options of a kernel."""
    if kernel is weigh:
        filters = {"BICUBIC": variant.bicubic, "TILE": variant.tile}
        return filters | COMPILER | FOUR_WARPS | {"num_warps": 1}
    common = {
        "TILE": variant.tile,
        "ALIGNED": variant.aligned,
        "CHANNELS_LAST": channels_last,
        **COMPILER,
    }
    if kernel is contrast:
        return common | {"PIXELS": tables.PIXELS, "STEP": 1024, "num_warps": 4}
    if kernel is resize:
        plain = variant.aligned and not variant.backgrounds
        common |= {"BACKGROUNDS": variant.backgrounds, **(FOUR_WARPS if plain else {})}
    if kernel is blur:
        aligned = ALIGNED_BLUR.get(variant.tile, {}) if variant.aligned else {}
        return common | BLUR_SHAPES[variant.tile] | aligned
    return common | SHAPES[variant.tile]
