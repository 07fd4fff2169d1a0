"""JPEG decoding inside compiled code, with the libturbojpeg that FFCV is linked with.

FFCV's own `imdecode` takes the fast inverse DCT, whose pixels are not PIL's, and overlooks errors.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from ffcv.libffcv import lib  # looking a name up in it finds those of libturbojpeg too
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_RGB, _ACCURATE_DCT = 0, 4096  # TJPF_RGB, TJFLAG_ACCURATEDCT; chroma is upsampled smoothly
_COLOUR_SPACES = 2  # TJCS_RGB, TJCS_YCbCr and TJCS_GRAY are below 3; CMYK and YCCK are not
_POINTER, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulong


def _function(name: str, result: Any, *arguments: Any) -> Any:
    found = lib[name]  # a new object, unlike lib.name, which FFCV may declare otherwise
    found.restype, found.argtypes = result, arguments
    return found


_init = _function("tjInitDecompress", _POINTER)
_destroy = _function("tjDestroy", _INT, _POINTER)
_header = _function("tjDecompressHeader3", _INT, *[_POINTER] * 2, _LONG, *[_POINTER] * 4)
_decompress = _function("tjDecompress2", _INT, *[_POINTER] * 2, _LONG, _POINTER, *[_INT] * 5)


@numba.njit(nogil=True, error_model="numpy")
def decode(data: np.ndarray, buffer: np.ndarray, facts: np.ndarray) -> bool:
    """Fill `buffer` with RGB and `facts` (int32 [4]) with height and width first: True if all well.

    What does not fit, is neither grey nor three components, or makes the library so much as warn
    is left to others.
    """
    handle = _init()
    where = facts.ctypes.data
    well = _header(
        handle, data.ctypes.data, data.size, where + 4, where, where + 8, where + 12
    ) == 0  # fmt: skip
    height, width = facts[0], facts[1]
    if well and facts[3] <= _COLOUR_SPACES and 3 * height * width <= buffer.size:
        well = _decompress(
            handle, data.ctypes.data, data.size, buffer.ctypes.data, width, 0, height, _RGB,
            _ACCURATE_DCT,
        ) == 0  # fmt: skip
    else:
        well = False
    _destroy(handle)
    return well


@numba.njit(nogil=True)
def pixels(address: int, height: int, width: int) -> np.ndarray:
    """The uint8 [height, width, 3] image at an address."""
    return numba.carray(_pointer(address), (height, width, 3))


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint8)(types.uintp), generate


@intrinsic
def take_number(typing_context: Any, counter: Any) -> Any:
    """The number in the one-element int64 array, which is one more for whoever asks next."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", array.data, one, "monotonic")

    return types.int64(counter), generate
