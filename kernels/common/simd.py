"""A 32-lane SIMD vector type for Numba, used by the CPU renderer's filters.

LLVM auto-vectorises plain loops well, except in two places that matter here: a 16-bit multiply that
keeps the high half (`pmulhw`, `smulh`) has twice the lanes of a float multiply, and an in-register
transpose moves a block without touching memory twice. Both appear only in explicit vector code.
This file adds one opaque Numba type, 32 lanes of int16 or float32, and the operations that the
filters need, as portable LLVM vectors rather than intrinsics of one architecture.

int16 lanes are fixed point. A weight w is stored as w * 32768, and `multiply_add` keeps
(value * weight) >> 16, so each filter pass halves the scale of its input. A pixel enters as
value << 7. Truncating each product loses half a unit on average; filters start their sums at
`taps // 2` to compensate.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, register_model

LANES = 32
I16, I32, FLOAT = ir.IntType(16), ir.IntType(32), ir.FloatType()
IR_TYPES = {types.int16: I16, types.float32: FLOAT, types.uint8: ir.IntType(8)}


class Vector(types.Type):
    """Numba type of 32 int16 or float32 lanes, in as many registers as the CPU needs."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(name=f"Vector({element})")


@register_model(Vector)
class VectorModel(PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(IR_TYPES[vector.element], LANES))


VECTORS = {element: Vector(element) for element in IR_TYPES}


def _constant(kind: ir.Type, value: float) -> ir.Constant:
    return ir.Constant(ir.VectorType(kind, LANES), [value] * LANES)


def _broadcast(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, vector.count), None)
    return builder.shuffle_vector(first, undefined, zeros)


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
    """Vector of `like`'s type from `array[offset:offset + 32]`; no bounds check.

    The array is flat. Bytes are loaded as value << 7.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type = signature.args[0]
        stored = ir.VectorType(IR_TYPES[array_type.dtype], LANES)
        value = _load(context, builder, array_type, arguments[0], arguments[1], stored)
        if array_type.dtype == types.uint8:
            value = builder.shl(builder.zext(value, ir.VectorType(I16, LANES)), _constant(I16, 7))
        if value.type.element == IR_TYPES[like.element]:
            return value
        return builder.sitofp(value, context.get_value_type(like))

    return like(array, types.int64, like), emit


@intrinsic
def load_deinterleaved(typing: Any, array: Any, offset: Any, like: Any) -> Any:
    """32 bytes of a flat array as lanes of `like`'s type: the even ones, then the odd ones.

    int16 lanes hold (byte - 128) << 8, which takes three instructions per 32 bytes; lanes in byte
    order would have to cross registers. float32 lanes hold byte << 7.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, offset, _ = arguments
        half = LANES // 2
        kind = ir.VectorType(ir.IntType(8), LANES)
        value = _load(context, builder, signature.args[0], array, offset, kind)
        value = builder.bitcast(value, ir.VectorType(I16, half))
        numbers = [ir.Constant(value.type, [n] * half) for n in (0x8080, 0xFF00, 8, 7, 0xFF)]
        signs, upper, eight, seven, lower = numbers
        if signature.return_type.element == types.int16:
            value = builder.xor(value, signs)
            even, odd = builder.shl(value, eight), builder.and_(value, upper)
        else:
            even, odd = builder.and_(value, lower), builder.lshr(value, eight)
            even, odd = builder.shl(even, seven), builder.shl(odd, seven)
        value = _shuffle(builder, even, odd, list(range(LANES)))
        if signature.return_type.element == types.int16:
            return value
        return builder.sitofp(value, context.get_value_type(signature.return_type))

    return like(array, types.int64, like), emit


@intrinsic
def prefetch(typing: Any, array: Any, offset: Any) -> Any:
    """Prefetch the cache line of `array[offset]`, which may be out of bounds."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, offset = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        address = builder.bitcast(builder.gep(data, [offset]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [address.type, I32, I32, I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, keep, data_cache = (ir.Constant(I32, n) for n in (0, 3, 1))
        builder.call(function, [address, read, keep, data_cache])
        return context.get_dummy_value()

    return types.void(array, types.int64), emit


@intrinsic
def store(typing: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Write a vector to `array[offset:offset + 32]`; no bounds check."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, offset, value = arguments
        address = _address(context, builder, signature.args[0], array, offset, value.type)
        builder.store(value, address).align = signature.args[0].dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), emit


@intrinsic
def splat(typing: Any, scalar: Any) -> Any:
    """Broadcast a scalar to every lane."""
    vector_type = VECTORS[scalar]

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _broadcast(builder, arguments[0], context.get_value_type(vector_type))

    return vector_type(scalar), emit


@intrinsic
def splat_at(typing: Any, array: Any, offset: Any) -> Any:
    """Broadcast an element of a flat array to every lane; no bounds check.

    An int32 stands for two equal int16 lanes: CPUs can broadcast 32 bits as part of a load, but not
    16.
    """
    vector_type = VECTORS[types.int16 if array.dtype == types.int32 else array.dtype]

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        scalar = builder.load(builder.gep(data, [arguments[1]]))
        like = context.get_value_type(vector_type)
        if array.dtype != types.int32:
            return _broadcast(builder, scalar, like)
        pairs = _broadcast(builder, scalar, ir.VectorType(I32, LANES // 2))
        return builder.bitcast(pairs, like)

    return vector_type(array, types.int64), emit


@intrinsic
def multiply_add(typing: Any, total: Any, value: Any, weight: Any) -> Any:
    """total + value * weight: the high half of the product for int16.

    float32 products are rounded before they are added: not every CPU has a fused multiply-add.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, value, weight = arguments
        if signature.return_type.element == types.float32:
            return builder.fadd(total, builder.fmul(value, weight))
        wide = ir.VectorType(I32, LANES)
        product = builder.mul(builder.sext(value, wide), builder.sext(weight, wide))
        return builder.add(
            total, builder.trunc(builder.ashr(product, _constant(I32, 16)), total.type)
        )

    return total(total, value, weight), emit


@intrinsic
def add(typing: Any, left: Any, right: Any) -> Any:
    """left + right, int16 lanes, wrapping."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.add(*arguments)

    return left(left, right), emit


@intrinsic
def subtract(typing: Any, left: Any, right: Any) -> Any:
    """left - right, int16 lanes, wrapping."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sub(*arguments)

    return left(left, right), emit


@intrinsic
def multiply(typing: Any, left: Any, right: Any) -> Any:
    """left * right, int16 lanes, low half."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.mul(*arguments)

    return left(left, right), emit


@intrinsic
def shift_right(typing: Any, value: Any, bits: Any) -> Any:
    """value >> bits, int16 lanes, arithmetic."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, bits = arguments
        return builder.ashr(value, _broadcast(builder, builder.trunc(bits, I16), value.type))

    return value(value, types.int64), emit


@intrinsic
def absolute(typing: Any, value: Any) -> Any:
    """One's-complement absolute value, int16 lanes: value, or ~value where negative."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        return builder.xor(value, builder.ashr(value, _constant(I16, 15)))

    return value(value), emit


@intrinsic
def shift_left(typing: Any, value: Any, bits: Any) -> Any:
    """value << bits for int16 lanes; float32 lanes pass through unchanged."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, bits = arguments
        if signature.return_type.element == types.float32:
            return value
        return builder.shl(value, _broadcast(builder, builder.trunc(bits, I16), value.type))

    return value(value, types.int64), emit


@intrinsic
def clamp(typing: Any, value: Any, top: Any) -> Any:
    """min(max(value, 0), top), lane-wise."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, top = arguments
        zero = ir.Constant(value.type, None)
        if signature.return_type.element == types.float32:
            lower = builder.select(builder.fcmp_ordered(">", value, zero), value, zero)
            return builder.select(builder.fcmp_ordered("<", lower, top), lower, top)
        lower = builder.select(builder.icmp_signed(">", value, zero), value, zero)
        return builder.select(builder.icmp_signed("<", lower, top), lower, top)

    return value(value, top), emit


BLOCK_ROWS, BLOCK_COLUMNS = 16, 8  # of `transpose_block`


@intrinsic
def transpose_block(
    typing: Any, source: Any, at: Any, pitch: Any, target: Any, to: Any, target_pitch: Any
) -> Any:
    """Transpose the 16 x 8 block at offset `at` of `source` to offset `to` of `target`."""
    return _transposition(source, target, BLOCK_ROWS)


@intrinsic
def transpose_tall_block(
    typing: Any, source: Any, at: Any, pitch: Any, target: Any, to: Any, target_pitch: Any
) -> Any:
    """Transpose a 32 x 8 block; otherwise like `transpose_block`. Writes whole cache lines."""
    return _transposition(source, target, LANES)


def _transposition(source: Any, target: Any, rows: int) -> Any:
    """Signature and code. Rows i, i + 8, ... share a register, as parts of eight elements each.

    Three perfect shuffles within all parts then transpose them.
    """
    signature = types.void(source, types.int64, types.int64, target, types.int64, types.int64)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, at, pitch, target, to, target_pitch = arguments
        source_type, target_type = signature.args[0], signature.args[3]
        part = ir.VectorType(IR_TYPES[source_type.dtype], BLOCK_COLUMNS)
        parts = []
        for i in range(rows):
            offset = builder.add(at, builder.mul(pitch, ir.Constant(pitch.type, i)))
            parts.append(_load(context, builder, source_type, source, offset, part))
        registers = [_joined(builder, parts[i::BLOCK_COLUMNS]) for i in range(BLOCK_COLUMNS)]
        for i, column in enumerate(_transposed(builder, registers)):
            offset = builder.add(to, builder.mul(target_pitch, ir.Constant(pitch.type, i)))
            address = _address(context, builder, target_type, target, offset, column.type)
            builder.store(column, address).align = target_type.dtype.bitwidth // 8
        return context.get_dummy_value()

    return signature, emit


def _joined(builder: Any, parts: list[Any]) -> Any:
    """Concatenate vectors of equal length, whose count is a power of two."""
    while len(parts) > 1:
        picks = list(range(2 * parts[0].type.count))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [_shuffle(builder, a, b, picks) for a, b in pairs]
    return parts[0]


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose the 8x8 blocks that are side by side in eight registers: three shuffles."""
    length = rows[0].type.count
    low = [
        part + j // 2 + length * (j % 2)
        for part in range(0, length, BLOCK_COLUMNS)
        for j in range(BLOCK_COLUMNS)
    ]
    high = [pick + BLOCK_COLUMNS // 2 for pick in low]
    for _ in range(3):
        shuffled = []
        for i in range(BLOCK_COLUMNS // 2):
            shuffled.append(_shuffle(builder, rows[i], rows[i + BLOCK_COLUMNS // 2], low))
            shuffled.append(_shuffle(builder, rows[i], rows[i + BLOCK_COLUMNS // 2], high))
        rows = shuffled
    return rows


def _shuffle(builder: Any, a: Any, b: Any, picks: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(picks)), picks))
