"""Shared by all kernels: device dispatch, Numba compilation and cache, threads, SIMD, memory."""

from patchmill.kernels.common.numba_import import import_numba

import_numba()
