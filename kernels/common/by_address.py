"""Calls by address: compiled code calls a function that has already been compiled.

Numba recompiles a callee into each of its callers, which takes ten seconds for the renderer. A
`Callee` is passed to compiled code like any other argument, and `call` calls it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
from numba.core import cgutils, types
from numba.core.datamodel.models import PrimitiveModel
from numba.core.errors import TypingError
from numba.extending import NativeValue, intrinsic, register_model, typeof_impl, unbox


class Callee:
    """A `jit` function, compiled or loaded for arguments of the types of `example`."""

    def __init__(self, function: Any, *example: Any) -> None:
        arguments = tuple(map(numba.typeof, example))
        function.compile(arguments)
        compiled = function.overloads[arguments]
        self.type = CalleeType(compiled.signature.return_type, arguments)
        self.address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


class CalleeType(types.Type):
    """Numba type of a Callee: the types of its arguments and its result."""

    def __init__(self, result: Any, arguments: tuple[Any, ...]) -> None:
        self.result, self.arguments = result, arguments
        super().__init__(name=f"Callee({result}, {arguments})")


@register_model(CalleeType)
class CalleeModel(PrimitiveModel):
    def __init__(self, manager: Any, callee: CalleeType) -> None:
        super().__init__(manager, callee, cgutils.intp_t)


@typeof_impl.register(Callee)
def _typeof(callee: Callee, context: Any) -> CalleeType:
    return callee.type


@unbox(CalleeType)
def _unbox(kind: CalleeType, callee: Any, c: Any) -> NativeValue:
    number = c.pyapi.object_getattr_string(callee, "address")
    address = c.pyapi.long_as_longlong(number)
    c.pyapi.decref(number)
    return NativeValue(address)


@intrinsic
def call(typing: Any, callee: Any, values: Any) -> Any:
    """Call a Callee with a tuple of arguments of the types it was compiled for."""
    if tuple(map(numba.types.unliteral, values)) != callee.arguments:
        raise TypingError(f"compiled for {callee.arguments}, called with {tuple(values)}")

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, packed = arguments
        passed = [
            context.cast(builder, builder.extract_value(packed, i), *kinds)
            for i, kinds in enumerate(zip(values, callee.arguments, strict=True))
        ]
        return emit_call(context, builder, address, callee.result, callee.arguments, passed)

    return callee.result(callee, values), emit


def emit_call(
    context: Any, builder: Any, address: Any, result: Any, kinds: Sequence[Any], values: Any
) -> Any:
    """Emit a call to the compiled function at an address; its exception becomes the caller's."""
    kind = context.call_conv.get_function_type(result, kinds)
    pointer = builder.inttoptr(address, kind.as_pointer())
    status, value = context.call_conv.call_function(builder, pointer, result, kinds, values)
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)
    return value
