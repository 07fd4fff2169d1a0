"""bfloat16, float16 and uint8 elements in Numba code, which computes in float32.

Numba has no 16-bit floats: NumPy uint16 stands for bfloat16, int16 for float16. The dtype alone
then selects the conversion, and loops over single elements are specialised and vectorised.
"""

from __future__ import annotations

import numpy as np
import torch
from numba.core import types
from numba.extending import overload

from patchmill.kernels.common.jit import jit_ieee

STORAGE_DTYPE = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}
INF_BITS, HALF_INF_BITS, HALF_SIGN = np.uint32(0x7F800000), np.uint32(0x7C00), np.uint32(0x8000)
EXPONENT_GAP = np.float32(2.0**112)  # difference of the exponent biases, 127 - 15
ONE_13, ONE_16 = np.uint32(13), np.uint32(16)
BYTE = np.float32(255)


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's memory as a NumPy array; 16-bit floats as their integer stand-ins."""
    return tensor.detach().view(STORAGE_DTYPE.get(tensor.dtype, tensor.dtype)).numpy()


def to_float(value):  # type: ignore[no-untyped-def]
    """An element as float32; uint8 is scaled to 0..1."""
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
    """row[i] = value; 16-bit floats round to nearest even."""
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


# -------------------------------------------- bit conversions, branch-free so that loops vectorise


@jit_ieee
def bfloat16_to_float(value):
    return np.uint32(np.uint32(value) << ONE_16).view(np.float32)


@jit_ieee
def half_to_float(value):
    bits = np.uint32(np.uint16(value))
    magnitude = np.uint32((bits & np.uint32(0x7FFF)) << ONE_13)
    scaled = np.float32(magnitude.view(np.float32) * EXPONENT_GAP).view(np.uint32)
    special = (bits & HALF_INF_BITS) == HALF_INF_BITS
    sign = np.uint32((bits & HALF_SIGN) << ONE_16)
    return np.uint32(sign | (magnitude | INF_BITS if special else scaled)).view(np.float32)


@jit_ieee
def float_to_bfloat16(value):
    bits = np.float32(value).view(np.uint32)
    nan = (bits & np.uint32(0x7FFFFFFF)) > INF_BITS
    rounded = bits + np.uint32(0x7FFF) + ((bits >> ONE_16) & np.uint32(1))
    return np.uint16((bits | np.uint32(0x400000) if nan else rounded) >> ONE_16)


@jit_ieee
def float_to_half(value):
    bits = np.float32(value).view(np.uint32)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    odd = (magnitude >> ONE_13) & np.uint32(1)
    normal = (magnitude - np.uint32(0x38000000) + np.uint32(0x0FFF) + odd) >> ONE_13
    # Subnormals (below 2**-14): adding 0.5 aligns the float32 mantissa to their unit, 2**-24.
    shifted = np.float32(magnitude.view(np.float32) + np.float32(0.5))
    subnormal = shifted.view(np.uint32) - np.uint32(0x3F000000)
    finite = subnormal if magnitude < np.uint32(0x38800000) else normal
    nonfinite = np.uint32(0x7E00) if magnitude > INF_BITS else HALF_INF_BITS
    overflow = magnitude >= np.uint32(0x47800000)
    sign = (bits >> ONE_16) & HALF_SIGN
    return np.int16(np.uint16(sign | (nonfinite if overflow else finite)))
