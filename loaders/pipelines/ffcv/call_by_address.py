"""Calls from compiled code to compiled code by address.

Numba otherwise compiles whatever is called once more, into the caller: FFCV's loaders would take a
quarter of a minute to start, each of them.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic


def by_address(function: Any, *example: Any) -> Any:
    """The jitted function for arguments of the types of `example`, to be called from others."""
    arguments = tuple(map(numba.typeof, example))
    function.compile(arguments)  # or load it
    compiled = function.overloads[arguments]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    signature = compiled.signature

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        values = [builder.extract_value(values[0], i) for i in range(len(arguments))]
        result = signature.return_type
        kind = context.call_conv.get_function_type(result, arguments)
        there = builder.inttoptr(ir.Constant(cgutils.intp_t, address), kind.as_pointer())
        status, value = context.call_conv.call_function(builder, there, result, arguments, values)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return value

    @intrinsic
    def call(typing_context, values):  # type: ignore[no-untyped-def]
        return signature.return_type(numba.types.Tuple(arguments)), generate

    @numba.njit(nogil=True)
    def called(*values):  # type: ignore[no-untyped-def]
        return call(values)

    return called
