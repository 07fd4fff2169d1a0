"""Copies of whole images within a GPU's memory: any number of images in one launch."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from patchmill.kernels.common.dispatch import device_guard
from patchmill.kernels.views.gpu.tables import upload

PART = 4096  # bytes, per block
COMPILER = {"num_warps": 8}


def copy_images(
    sources: np.ndarray, targets: np.ndarray, sizes: np.ndarray, device: torch.device
) -> None:
    """Queue, on the current stream, copies of `sizes` bytes between device addresses.

    All are int64 [N]. The source bytes must live until the work is done. Reads and writes every
    byte once, plus 24 bytes of table per PART bytes.
    """
    parts = parts_of(sources, targets, sizes)
    if not len(parts):
        return
    (table,) = upload([parts], device)
    with device_guard(table):
        copy_parts[(len(parts),)](table, PART=PART, **COMPILER)


def parts_of(sources: np.ndarray, targets: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The copies split into parts of at most PART bytes: [parts, 3] of source, target and size."""
    counts = -(-sizes // PART)
    copy = np.repeat(np.arange(len(sizes)), counts)
    begin = PART * (np.arange(len(copy)) - np.repeat(np.cumsum(counts) - counts, counts))
    parts = [sources[copy] + begin, targets[copy] + begin, np.minimum(sizes[copy] - begin, PART)]
    return np.stack(parts, 1).astype(np.int64)


@triton.jit
def copy_parts(
    parts,  # [blocks, 3] int64: the addresses to copy from and to, and the number of bytes
    PART: tl.constexpr,
):  # fmt: skip
    """One part per block, byte by byte: images may lie at any address."""
    part = parts + 3 * tl.program_id(0)
    source = tl.load(part).to(tl.pointer_type(tl.uint8))
    target = tl.load(part + 1).to(tl.pointer_type(tl.uint8))
    byte = tl.arange(0, PART)
    inside = byte < tl.load(part + 2)
    tl.store(target + byte, tl.load(source + byte, inside), inside)
