"""JPEG decoding inside compiled code, by the libturbojpeg that FFCV is linked with.

FFCV's own `imdecode` uses the fast inverse DCT, whose pixels are not PIL's, and ignores errors.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from ffcv.libffcv import lib  # its symbols include those of libturbojpeg
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_RGB, _ACCURATE_DCT = 0, 4096  # TJPF_RGB, TJFLAG_ACCURATEDCT; chroma is upsampled smoothly
_COLOUR_SPACES = 2  # TJCS_RGB, TJCS_YCbCr and TJCS_GRAY are below 3; CMYK and YCCK are not
_POINTER, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulong


def c_function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of FFCV's libraries or their dependencies, for compiled code."""
    function = lib[name]  # a new object, unlike lib.name, which FFCV may declare differently
    function.restype, function.argtypes = result, arguments
    return function


_init = c_function("tjInitDecompress", _POINTER)
_destroy = c_function("tjDestroy", _INT, _POINTER)
_header = c_function("tjDecompressHeader3", _INT, *[_POINTER] * 2, _LONG, *[_POINTER] * 4)
_decompress = c_function("tjDecompress2", _INT, *[_POINTER] * 2, _LONG, _POINTER, *[_INT] * 5)


@numba.njit(nogil=True, error_model="numpy")
def decode(data: np.ndarray, buffer: np.ndarray, header: np.ndarray) -> bool:
    """Decode a JPEG to RGB in `buffer`; `header` (int32 [4]) starts with height and width.

    False if the image does not fit, has neither one nor three components, or if the library even
    warns: the caller then falls back to another decoder.
    """
    handle = _init()
    address = header.ctypes.data
    success = _header(
        handle, data.ctypes.data, data.size, address + 4, address, address + 8, address + 12
    ) == 0  # fmt: skip
    height, width = header[0], header[1]
    if success and header[3] <= _COLOUR_SPACES and 3 * height * width <= buffer.size:
        success = _decompress(
            handle, data.ctypes.data, data.size, buffer.ctypes.data, width, 0, height, _RGB,
            _ACCURATE_DCT,
        ) == 0  # fmt: skip
    else:
        success = False
    _destroy(handle)
    return success


@numba.njit(nogil=True)
def pixels(address: int, height: int, width: int) -> np.ndarray:
    """The uint8 [height, width, 3] image at an address."""
    return numba.carray(_pointer(address), (height, width, 3))


@numba.njit(nogil=True)
def plane(address: int, height: int, width: int) -> np.ndarray:
    """The uint8 [height, width] plane at an address."""
    return numba.carray(_pointer(address), (height, width))


@numba.njit(nogil=True)
def bytes_at(address: int, size: int) -> np.ndarray:
    """The bytes at an address."""
    return numba.carray(_pointer(address), (size,))


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint8)(types.uintp), generate


@intrinsic
def take_number(typing_context: Any, counter: Any) -> Any:
    """Atomic fetch-and-increment of a one-element int64 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", array.data, one, "monotonic")

    return types.int64(counter), generate
