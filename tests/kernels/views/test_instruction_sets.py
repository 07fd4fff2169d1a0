"""Views have the same pixels for any CPU instruction set: nothing is fused or reordered."""

from __future__ import annotations

import importlib
import pkgutil

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

import patchmill.kernels.views.cpu as cpu
from patchmill.kernels.common.simd import LANES, load, multiply_add, splat, store
from patchmill.kernels.common.simd_pixels import to_bfloat16


def test_no_compiled_function_of_the_renderer_may_fuse_or_reorder() -> None:
    fast, looked_at = [], 0
    for module in pkgutil.iter_modules(cpu.__path__, f"{cpu.__name__}."):
        for name, function in vars(importlib.import_module(module.name)).items():
            if isinstance(function, Dispatcher):
                looked_at += 1
                if function.targetoptions.get("fastmath"):
                    fast.append(f"{module.name}.{name}")
    assert looked_at > 50
    assert fast == []


@numba.njit
def _multiply_add(total, value, weight):
    like = splat(np.float32(0))
    store(total, 0, multiply_add(load(total, 0, like), load(value, 0, like), splat(weight)))


@numba.njit
def _encoded(values, gain, bias, out):
    store(out, 0, to_bfloat16(load(values, 0, splat(np.int16(0))), gain, bias))


def test_products_are_rounded_before_they_are_added() -> None:
    """A fused multiply-add would keep the digits that rounding the product drops."""
    factor = np.float32(1 + 2.0**-12)
    product = np.float32(factor * factor)
    assert float(factor) * float(factor) != float(product)
    total = np.full(LANES, -product)
    _multiply_add(total, np.full(LANES, factor), factor)
    assert (total == 0).all()
    gain, bits = np.float32(0.1), np.empty(LANES, np.int16)
    assert 4097 * float(gain) != float(np.float32(4097) * gain)
    _encoded(np.full(LANES, 4097, np.int16), gain, -np.float32(4097) * gain, bits)
    assert (bits == 0).all()
