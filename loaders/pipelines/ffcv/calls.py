"""Calls from code that is compiled for each loader: functions by address, and a clock."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from patchmill.kernels.common.by_address import emit_call


def by_address(function: Any, *example: Any) -> Any:
    """Make a jitted function callable from compiled code by its address, for types of `example`.

    Numba otherwise recompiles a callee into each caller: every FFCV loader would take 15 seconds to
    start.
    """
    arguments = tuple(map(numba.typeof, example))
    result, generate = _call_of(function, arguments)

    @intrinsic
    def call(typing_context, values):  # type: ignore[no-untyped-def]
        return result(numba.types.Tuple(arguments)), generate

    @numba.njit(nogil=True)
    def called(*values):  # type: ignore[no-untyped-def]
        return call(values)

    return called


def compiled_once(function: Any) -> Any:
    """`by_address` for whatever types the function is called with."""

    @intrinsic
    def call(typing_context, values):  # type: ignore[no-untyped-def]
        arguments = tuple(map(numba.types.unliteral, values))
        result, generate = _call_of(function, arguments)
        return result(numba.types.Tuple(arguments)), generate

    @numba.njit(nogil=True)
    def called(*values):  # type: ignore[no-untyped-def]
        return call(values)

    return called


def _call_of(function: Any, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    """The type of a function's result, and a code generator for calls with a tuple of arguments."""
    function.compile(arguments)  # or load from the cache
    compiled = function.overloads[arguments]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    result = compiled.signature.return_type

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        values = [builder.extract_value(values[0], i) for i in range(len(arguments))]
        pointer = ir.Constant(cgutils.intp_t, address)
        return emit_call(context, builder, pointer, result, arguments, values)

    return result, generate


_clock = ctypes.CDLL(None).clock_gettime
_clock.argtypes = [ctypes.c_int, ctypes.c_void_p]
_MONOTONIC = time.CLOCK_MONOTONIC


@numba.njit(nogil=True)
def nanoseconds(clock):  # type: ignore[no-untyped-def]
    _clock(_MONOTONIC, clock.ctypes.data)
    return clock[0] * 1_000_000_000 + clock[1]
