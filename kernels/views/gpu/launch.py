"""From a batch's tables to launches: which kernels, on how many blocks, with which arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import Target
from patchmill.kernels.views.gpu import tables
from patchmill.kernels.views.gpu.blur import blur
from patchmill.kernels.views.gpu.colour import contrast
from patchmill.kernels.views.gpu.resize import resize
from patchmill.kernels.views.gpu.tables import Images, Kind

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)

# By a tile's side: warps, and the DEEP x WIDE numbers that a filter's product takes at a time.
SHAPES = {
    16: {"num_warps": 1, "DEEP": 16, "WIDE": 32},
    32: {"num_warps": 2, "DEEP": 16, "WIDE": 32},
}
# With more registers too few warps fit on a multiprocessor to hide what each of them waits for.
COMPILER = {"num_stages": 1, "maxnreg": 168, "enable_fp_fusion": True}


@dataclass(frozen=True)
class Launch:
    """One kernel, ready to go on the current stream."""

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
    """What fills `out`, in this order."""
    tables.check(images, rows, targets)
    batch, views = rows.shape
    if out.dtype not in DTYPES or out.shape != (layout.elements(targets, batch),):
        raise ValueError(
            f"the batch needs {layout.elements(targets, batch)} numbers of float32, float16, "
            f"bfloat16 or uint8, not {tuple(out.shape)} of {out.dtype}"
        )
    kinds = tables.kinds(rows, targets, images.masks is not None)
    uploaded = iter(
        tables.upload(
            [
                tables.image_table(images),
                tables.paste_table(images),
                tables.slot_table(targets, batch, out.dtype == torch.uint8),
                np.ascontiguousarray(rows).view(np.int32),
                *(array for kind in kinds for array in kind.arrays.values()),
            ],
            out.device,
        )
    )
    pointers, pasted, slots, decisions = islice(uploaded, 4)
    later = any(kind.contrast.blocks or kind.blur.blocks for kind in kinds)
    planes = torch.empty(len(out) if later else 0, dtype=torch.float16, device=out.device)
    shared = {"rows": decisions, "slots": slots, "out": out, "planes": planes, "n_views": views}

    found = []
    for kind in kinds:
        on_device = dict(zip(kind.arrays, uploaded, strict=False))
        tiles = batch * views * kind.most_tiles if kind.contrast.blocks else 0
        sums = torch.empty(tiles, dtype=torch.float32, device=out.device)
        measured = {"sums": sums, "most_tiles": kind.most_tiles}
        per_image = kind.resize.blocks
        sources = {"images": pointers, "pasted": pasted, "per_image": per_image}
        for kernel, blocks, own in (
            (resize, batch * per_image, {**sources, **measured}),
            (contrast, kind.contrast.blocks, {"listed": on_device["contrasted"], **measured}),
            (blur, kind.blur.blocks, {"listed": on_device["blurred"]}),
        ):
            own |= {"groups": on_device[kernel.__name__], "n_groups": len(kind.resize.groups)}
            if blocks:
                compiled = constants(kernel, kind, channels_last)
                found.append(Launch(kernel, blocks, shared | own | compiled))
    return found


def constants(kernel: Any, kind: Kind, channels_last: bool) -> dict[str, Any]:
    """What the machine code of a kernel is made for."""
    found = {"TILE": kind.tile, "EVEN": kind.even, "CHANNELS_LAST": channels_last, **COMPILER}
    if kernel is contrast:
        return found | {"PIXELS": tables.PIXELS, "num_warps": 4}
    if kernel is resize:
        found |= {"BICUBIC": kind.bicubic, "PASTES": kind.pastes}
    return found | SHAPES[kind.tile]
