"""Warps that run at once on a multiprocessor, from what a kernel needs of it."""

from __future__ import annotations

# Of a multiprocessor, by compute capability; shared memory in bytes, with the most of the cache.
SHARED = {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}
SHARED_RESERVED = 1024  # bytes, by the driver for each block
MOST_WARPS, MOST_BLOCKS = 64, 32
SCHEDULERS = 4
REGISTERS = 65536 // SCHEDULERS  # of a scheduler
REGISTER_UNIT = 256  # a warp gets a multiple of it


def warps(capability: int, registers: int, shared: int, num_warps: int) -> int:
    """Warps on a multiprocessor, of blocks of `num_warps` with `shared` bytes each."""
    of_a_warp = -(-32 * registers // REGISTER_UNIT) * REGISTER_UNIT
    blocks = min(
        SCHEDULERS * (REGISTERS // of_a_warp) // num_warps,
        SHARED[capability] // (shared + SHARED_RESERVED),
        MOST_WARPS // num_warps,
        MOST_BLOCKS,
    )
    return blocks * num_warps
