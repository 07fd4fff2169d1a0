"""Shared by all kernels: device dispatch, Numba compilation and cache, threads, SIMD, memory."""
