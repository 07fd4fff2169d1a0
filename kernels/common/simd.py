"""Thirty-two numbers at a time: the vector type that the CPU renderer's filters are written in.

LLVM vectorises plain loops well, except where it matters most here: a 16-bit multiply that keeps
the high half (`pmulhw`, `smulh`) doubles the lanes of a float multiply, and an in-register
transpose moves a block without touching memory twice. Both appear only when the vector code is
spelled out, so this file adds one opaque numba type for 32 lanes of int16 or float32 and the few
operations the filters need. It emits portable LLVM vectors, not intrinsics of one processor.

int16 lanes are fixed point: a weight w is stored as w * 32768, and `tap` keeps (value * weight) >>
16, so each filter pass halves the scale of its input. A pixel enters as value << 7. The truncation
of each tap loses half a unit on average; filters start from `taps // 2` to give it back.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, register_model

WIDTH = 32
I16, I32, FLOAT = ir.IntType(16), ir.IntType(32), ir.FloatType()
IR = {types.int16: I16, types.float32: FLOAT, types.uint8: ir.IntType(8)}


class Lanes(types.Type):
    """Thirty-two int16 or float32 values, in as many registers as the processor needs."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(name=f"Lanes({element})")


@register_model(Lanes)
class LanesModel(PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, ir.VectorType(IR[lanes.element], WIDTH))


LANES = {element: Lanes(element) for element in (types.int16, types.float32)}


def _repeat(kind: ir.Type, value: float) -> ir.Constant:
    return ir.Constant(ir.VectorType(kind, WIDTH), [value] * WIDTH)


def _spread(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, _repeat(I32, 0))


def _address(
    context: Any, builder: Any, array_type: Any, array: Any, offset: Any, vector: Any
) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _load(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, vector: Any) -> Any:
    value = builder.load(_address(context, builder, array_type, array, offset, vector))
    value.align = array_type.dtype.bitwidth // 8
    return value


@intrinsic
def load(typing: Any, array: Any, offset: Any, like: Any) -> Any:
    """Lanes of `like`'s kind from `array[offset:offset + 32]` of a flat array; bounds are not
    checked.

    Bytes are taken as value << 7.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type = signature.args[0]
        stored = ir.VectorType(IR[array_type.dtype], WIDTH)
        value = _load(context, builder, array_type, arguments[0], arguments[1], stored)
        if array_type.dtype == types.uint8:
            value = builder.shl(builder.zext(value, ir.VectorType(I16, WIDTH)), _repeat(I16, 7))
        if value.type.element == IR[like.element]:
            return value
        return builder.sitofp(value, context.get_value_type(like))

    return like(array, types.int64, like), emit


@intrinsic
def store(typing: Any, array: Any, offset: Any, lanes: Any) -> Any:
    """Write lanes to `array[offset:offset + 32]`."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, offset, value = arguments
        address = _address(context, builder, signature.args[0], array, offset, value.type)
        builder.store(value, address).align = signature.args[0].dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.int64, lanes), emit


@intrinsic
def splat(typing: Any, scalar: Any) -> Any:
    """The same number in every lane."""
    lanes = LANES[scalar]

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _spread(builder, arguments[0], context.get_value_type(lanes))

    return lanes(scalar), emit


@intrinsic
def tap(typing: Any, total: Any, value: Any, weight: Any) -> Any:
    """total + value * weight; for int16 the product's high half."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, value, weight = arguments
        if signature.return_type.element == types.float32:
            product = builder.fmul(value, weight, flags=["fast"])
            return builder.fadd(total, product, flags=["fast"])
        wide = ir.VectorType(I32, WIDTH)
        product = builder.mul(builder.sext(value, wide), builder.sext(weight, wide))
        return builder.add(
            total, builder.trunc(builder.ashr(product, _repeat(I32, 16)), total.type)
        )

    return total(total, value, weight), emit


@intrinsic
def plus(typing: Any, left: Any, right: Any) -> Any:
    """left + right, of int16 lanes."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.add(*arguments)

    return left(left, right), emit


@intrinsic
def minus(typing: Any, left: Any, right: Any) -> Any:
    """left - right, of int16 lanes."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sub(*arguments)

    return left(left, right), emit


@intrinsic
def times(typing: Any, left: Any, right: Any) -> Any:
    """The low half of left * right, of int16 lanes."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.mul(*arguments)

    return left(left, right), emit


@intrinsic
def halved(typing: Any, value: Any, times: Any) -> Any:
    """value >> times, rounding down, of int16 lanes."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, times = arguments
        return builder.ashr(value, _spread(builder, builder.trunc(times, I16), value.type))

    return value(value, types.int64), emit


@intrinsic
def folded(typing: Any, value: Any) -> Any:
    """value or -1 - value, whichever is not negative, of int16 lanes."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        return builder.xor(value, builder.ashr(value, _repeat(I16, 15)))

    return value(value), emit


@intrinsic
def doubled(typing: Any, value: Any, times: Any) -> Any:
    """value << times for int16; float32 is returned as it is."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, times = arguments
        if signature.return_type.element == types.float32:
            return value
        return builder.shl(value, _spread(builder, builder.trunc(times, I16), value.type))

    return value(value, types.int64), emit


@intrinsic
def clamp(typing: Any, value: Any, top: Any) -> Any:
    """min(max(value, 0), top), lane by lane."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, top = arguments
        zero = ir.Constant(value.type, None)
        if signature.return_type.element == types.float32:
            lower = builder.select(builder.fcmp_ordered(">", value, zero), value, zero)
            return builder.select(builder.fcmp_ordered("<", lower, top), lower, top)
        lower = builder.select(builder.icmp_signed(">", value, zero), value, zero)
        return builder.select(builder.icmp_signed("<", lower, top), lower, top)

    return value(value, top), emit


TALL, WIDE = 16, 8


@intrinsic
def transpose_block(
    typing: Any, source: Any, at: Any, pitch: Any, target: Any, to: Any, target_pitch: Any
) -> Any:
    """Copy the block of 16 rows by 8 columns at flat `at` of `source` to `to` of `target`,
    transposed.

    Rows i and i + 8 share a register, so that interleaving within half registers does all the work.
    """
    signature = types.void(source, types.int64, types.int64, target, types.int64, types.int64)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, at, pitch, target, to, target_pitch = arguments
        source_type, target_type = signature.args[0], signature.args[3]
        half = ir.VectorType(IR[source_type.dtype], WIDE)
        rows = []
        for i in range(TALL):
            offset = builder.add(at, builder.mul(pitch, ir.Constant(pitch.type, i)))
            rows.append(_load(context, builder, source_type, source, offset, half))
        whole = list(range(TALL))
        columns = [_shuffle(builder, rows[i], rows[i + WIDE], whole) for i in range(WIDE)]
        for i, column in enumerate(_transposed(builder, columns)):
            offset = builder.add(to, builder.mul(target_pitch, ir.Constant(pitch.type, i)))
            address = _address(context, builder, target_type, target, offset, column.type)
            builder.store(column, address).align = target_type.dtype.bitwidth // 8
        return context.get_dummy_value()

    return signature, emit


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Two 8x8 blocks, one in each half of eight registers: riffle rows i and i + 4 three times."""
    low = [half + j // 2 + TALL * (j % 2) for half in (0, WIDE) for j in range(WIDE)]
    high = [pick + WIDE // 2 for pick in low]
    for _ in range(3):
        riffled = []
        for i in range(WIDE // 2):
            riffled.append(_shuffle(builder, rows[i], rows[i + WIDE // 2], low))
            riffled.append(_shuffle(builder, rows[i], rows[i + WIDE // 2], high))
        rows = riffled
    return rows


def _shuffle(builder: Any, a: Any, b: Any, picks: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(picks)), picks))
