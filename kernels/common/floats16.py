"""Numbers of float32, of 16 bits, and bytes for compiled code, which computes in float32.

In NumPy's arrays uint16 stands for bfloat16 and int16 for half precision: so that a type says all,
and loops that read or write one number at a time are compiled for it, and vectorised.
"""

from __future__ import annotations

import numpy as np
import torch
from numba.core import types
from numba.extending import overload

from patchmill.kernels.common.jit import jit_ieee

STORAGE_DTYPE = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}
INFINITE, HALF_INFINITE, SIGN = np.uint32(0x7F800000), np.uint32(0x7C00), np.uint32(0x8000)
SPREAD = np.float32(2.0**112)  # between the exponents of half precision and of float32
ONE_13, ONE_16 = np.uint32(13), np.uint32(16)
BYTE = np.float32(255)


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's memory as compiled code takes it."""
    return tensor.detach().view(STORAGE_DTYPE.get(tensor.dtype, tensor.dtype)).numpy()


def to_float(value):  # type: ignore[no-untyped-def]
    """As float32; a byte as 0 to 1."""
    raise TypeError("only inside compiled code")


@overload(to_float)
def _to_float(value):  # type: ignore[no-untyped-def]
    return {
        types.float32: lambda value: value,
        types.uint8: lambda value: np.float32(value) / BYTE,
        types.uint16: lambda value: bfloat16_to_float(value),
        types.int16: lambda value: half_to_float(value),
    }[value]


def store_float(row, i, value):  # type: ignore[no-untyped-def]
    """row[i] = value, a float32 rounded to nearest even where the row's numbers have 16 bits."""
    raise TypeError("only inside compiled code")


@overload(store_float)
def _store_float(row, i, value):  # type: ignore[no-untyped-def]
    def floats(row, i, value):
        row[i] = value

    def bfloats(row, i, value):
        row[i] = float_to_bfloat16(value)

    def halves(row, i, value):
        row[i] = float_to_half(value)

    return {types.float32: floats, types.uint16: bfloats, types.int16: halves}[row.dtype]


# ----------------------------------------------------- bits, without branches: loops vectorise


@jit_ieee
def bfloat16_to_float(value):
    return np.uint32(np.uint32(value) << ONE_16).view(np.float32)


@jit_ieee
def half_to_float(value):
    bits = np.uint32(np.uint16(value))
    magnitude = np.uint32((bits & np.uint32(0x7FFF)) << ONE_13)
    scaled = np.float32(magnitude.view(np.float32) * SPREAD).view(np.uint32)
    special = (bits & HALF_INFINITE) == HALF_INFINITE
    sign = np.uint32((bits & SIGN) << ONE_16)
    return np.uint32(sign | (magnitude | INFINITE if special else scaled)).view(np.float32)


@jit_ieee
def float_to_bfloat16(value):
    bits = np.float32(value).view(np.uint32)
    nan = (bits & np.uint32(0x7FFFFFFF)) > INFINITE
    rounded = bits + np.uint32(0x7FFF) + ((bits >> ONE_16) & np.uint32(1))
    return np.uint16((bits | np.uint32(0x400000) if nan else rounded) >> ONE_16)


@jit_ieee
def float_to_half(value):
    bits = np.float32(value).view(np.uint32)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    odd = (magnitude >> ONE_13) & np.uint32(1)
    normal = (magnitude - np.uint32(0x38000000) + np.uint32(0x0FFF) + odd) >> ONE_13
    # Below 2**-14 a half counts in units of 2**-24, which adding 0.5 makes the unit of a float32.
    shifted = np.float32(magnitude.view(np.float32) + np.float32(0.5))
    small = shifted.view(np.uint32) - np.uint32(0x3F000000)
    finite = small if magnitude < np.uint32(0x38800000) else normal
    endless = np.uint32(0x7E00) if magnitude > INFINITE else HALF_INFINITE
    large = magnitude >= np.uint32(0x47800000)
    sign = (bits >> ONE_16) & SIGN
    return np.int16(np.uint16(sign | (endless if large else finite)))
