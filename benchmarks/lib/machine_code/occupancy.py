"""Resident warps on a multiprocessor, from a kernel's resource usage."""

from __future__ import annotations

# Of a multiprocessor, by compute capability: bytes of shared memory, at the largest carve-out of
# the cache; resident warps and blocks.
LIMITS = {
    80: (164 * 1024, 64, 32),
    89: (100 * 1024, 48, 24),
    90: (228 * 1024, 64, 32),
    100: (228 * 1024, 64, 32),
}
SHARED_RESERVED = 1024  # bytes, by the driver per block
SCHEDULERS = 4
REGISTERS = 65536 // SCHEDULERS  # of a scheduler
REGISTER_UNIT = 256  # registers of a warp are a multiple of it


def warps(capability: int, registers: int, shared: int, num_warps: int) -> int:
    """Resident warps on a multiprocessor, for blocks of `num_warps` with `shared` bytes each."""
    of_a_warp = -(-32 * registers // REGISTER_UNIT) * REGISTER_UNIT
    shared_memory, most_warps, most_blocks = LIMITS[capability]
    blocks = min(
        SCHEDULERS * (REGISTERS // of_a_warp) // num_warps,
        shared_memory // (shared + SHARED_RESERVED),
        most_warps // num_warps,
        most_blocks,
    )
    return blocks * num_warps
