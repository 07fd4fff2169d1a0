"""Vector operations for pixels: unsigned fixed point, selection per lane, sums, and conversions.

They extend the vector type of `simd`. Lanes are unsigned 16-bit numbers unless a function says
otherwise: `multiply_high` then keeps two bits more than the signed product, and saturating
subtraction clamps at zero for free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from patchmill.kernels.common.simd import I16, I32, LANES, VECTORS

I8, I64 = ir.IntType(8), ir.IntType(64)
SOME = LANES // 2
PAIRS = ir.VectorType(I32, SOME)


def _constant(kind: ir.Type, value: Any) -> ir.Constant:
    return ir.Constant(ir.VectorType(kind, LANES), [value] * LANES)


def _shuffle(builder: Any, a: Any, b: Any, picks: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(picks)), picks))


def _lane_wise(emit_lanes: Callable[..., Any], signature: Any) -> tuple[Any, Callable[..., Any]]:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit_lanes(builder, *arguments)

    return signature, emit


@intrinsic
def multiply_high(typing: Any, value: Any, weight: Any) -> Any:
    """High half of the product: value * weight >> 16."""

    def lanes(builder: Any, value: Any, weight: Any) -> Any:
        wide = ir.VectorType(I32, LANES)
        product = builder.mul(builder.zext(value, wide), builder.zext(weight, wide))
        return builder.trunc(builder.lshr(product, _constant(I32, 16)), value.type)

    return _lane_wise(lanes, value(value, weight))


@intrinsic
def subtract_to_zero(typing: Any, left: Any, right: Any) -> Any:
    """max(left - right, 0)."""

    def lanes(builder: Any, left: Any, right: Any) -> Any:
        larger = builder.select(builder.icmp_unsigned(">", left, right), left, right)
        return builder.sub(larger, right)

    return _lane_wise(lanes, left(left, right))


@intrinsic
def smaller(typing: Any, left: Any, right: Any) -> Any:
    """min(left, right)."""

    def lanes(builder: Any, left: Any, right: Any) -> Any:
        return builder.select(builder.icmp_unsigned("<", left, right), left, right)

    return _lane_wise(lanes, left(left, right))


@intrinsic
def larger(typing: Any, left: Any, right: Any) -> Any:
    """max(left, right)."""

    def lanes(builder: Any, left: Any, right: Any) -> Any:
        return builder.select(builder.icmp_unsigned(">", left, right), left, right)

    return _lane_wise(lanes, left(left, right))


@intrinsic
def magnitude(typing: Any, value: Any) -> Any:
    """Absolute value of signed lanes."""

    def lanes(builder: Any, value: Any) -> Any:
        zero = ir.Constant(value.type, None)
        return builder.select(
            builder.icmp_signed("<", value, zero), builder.sub(zero, value), value
        )

    return _lane_wise(lanes, value(value))


@intrinsic
def where_equal(typing: Any, left: Any, right: Any, then: Any, otherwise: Any) -> Any:
    """`then` in lanes where left == right, else `otherwise`."""

    def lanes(builder: Any, left: Any, right: Any, then: Any, otherwise: Any) -> Any:
        return builder.select(builder.icmp_signed("==", left, right), then, otherwise)

    return _lane_wise(lanes, then(left, right, then, otherwise))


@intrinsic
def where_above(typing: Any, left: Any, right: Any, then: Any, otherwise: Any) -> Any:
    """`then` in lanes where left > right as signed numbers, else `otherwise`."""

    def lanes(builder: Any, left: Any, right: Any, then: Any, otherwise: Any) -> Any:
        return builder.select(builder.icmp_signed(">", left, right), then, otherwise)

    return _lane_wise(lanes, then(left, right, then, otherwise))


# ------------------------------------------------------------------------------------------- sums


@intrinsic
def first_lanes(typing: Any, value: Any, count: Any) -> Any:
    """The first `count` lanes, and zero in the others."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, count = arguments
        undefined = ir.Constant(value.type, ir.Undefined)
        most = ir.Constant(count.type, LANES)
        count = builder.select(builder.icmp_signed("<", count, most), count, most)
        one = builder.insert_element(undefined, builder.trunc(count, I16), ir.Constant(I32, 0))
        counts = _shuffle(builder, one, undefined, [0] * LANES)
        lane = ir.Constant(value.type, list(range(LANES)))
        inside = builder.icmp_signed("<", lane, counts)
        return builder.select(inside, value, ir.Constant(value.type, None))

    return value(value, types.int64), emit


@intrinsic
def add_pairs(typing: Any, total: Any, value: Any) -> Any:
    """Add neighbouring lanes of `value` to `total`, which holds 16 sums of 32 bits."""

    def lanes(builder: Any, total: Any, value: Any) -> Any:
        pairs, half = builder.bitcast(value, PAIRS), ir.Constant(PAIRS, [16] * (LANES // 2))
        low = builder.lshr(builder.shl(pairs, half), half)
        both = builder.add(low, builder.lshr(pairs, half))
        return builder.bitcast(builder.add(builder.bitcast(total, PAIRS), both), total.type)

    return _lane_wise(lanes, total(total, value))


@intrinsic
def sum_pairs(typing: Any, total: Any) -> Any:
    """Sum of the 16 sums of `add_pairs`, as an int64; less than 2**32."""

    def lanes(builder: Any, total: Any) -> Any:
        sums = builder.bitcast(total, PAIRS)
        count = LANES // 2
        while count > 1:
            count //= 2
            upper = _shuffle(builder, sums, sums, list(range(count, 2 * count)))
            sums = builder.add(_shuffle(builder, sums, sums, list(range(count))), upper)
        return builder.zext(builder.extract_element(sums, ir.Constant(I32, 0)), I64)

    return _lane_wise(lanes, types.int64(total))


# ------------------------------------------------------------------------------------ conversions


@intrinsic
def to_float32(typing: Any, value: Any) -> Any:
    """Signed lanes as float32."""

    def lanes(builder: Any, value: Any) -> Any:
        return builder.sitofp(value, ir.VectorType(ir.FloatType(), LANES))

    return _lane_wise(lanes, VECTORS[types.float32](value))


@intrinsic
def to_bfloat16(typing: Any, value: Any, gain: Any, bias: Any) -> Any:
    """gain * value + bias of signed lanes as bfloat16 bits, rounded to nearest even.

    Even and odd lanes are converted in a vector each, so that no lane has to move: a lane in the
    upper half of 32 bits is an integer 65536 times as large.
    """

    def lanes(builder: Any, value: Any, gain: Any, bias: Any) -> Any:
        pairs, upper = builder.bitcast(value, PAIRS), ir.Constant(PAIRS, [0xFFFF0000] * SOME)
        sixteen = ir.Constant(PAIRS, [16] * SOME)
        floats = ir.VectorType(ir.FloatType(), SOME)
        gain = builder.fmul(gain, ir.Constant(ir.FloatType(), 2.0**-16))
        gains, biases = _splat(builder, gain, floats), _splat(builder, bias, floats)

        def rounded(words: Any) -> Any:
            product = builder.fmul(builder.sitofp(words, floats), gains)
            bits = builder.bitcast(builder.fadd(product, biases), PAIRS)
            odd = builder.and_(builder.lshr(bits, sixteen), ir.Constant(PAIRS, [1] * SOME))
            return builder.add(builder.add(bits, ir.Constant(PAIRS, [0x7FFF] * SOME)), odd)

        even = builder.lshr(rounded(builder.shl(pairs, sixteen)), sixteen)
        odd = builder.and_(rounded(builder.and_(pairs, upper)), upper)
        return builder.bitcast(builder.or_(even, odd), value.type)

    return _lane_wise(lanes, value(value, types.float32, types.float32))


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return _shuffle(builder, first, undefined, [0] * vector.count)


@intrinsic
def to_half(typing: Any, value: Any) -> Any:
    """float32 lanes as float16 bits, rounded to nearest even, for |value| < 65504.

    Subnormals (below 2**-14): adding 0.5 aligns the float32 mantissa to their unit, 2**-24.
    """

    def lanes(builder: Any, value: Any) -> Any:
        words = ir.VectorType(I32, LANES)
        bits = builder.bitcast(value, words)
        size = builder.and_(bits, _constant(I32, 0x7FFFFFFF))
        odd = builder.and_(builder.lshr(size, _constant(I32, 13)), _constant(I32, 1))
        rebased = builder.add(size, _constant(I32, 0x0FFF - 0x38000000))
        normal = builder.lshr(builder.add(rebased, odd), _constant(I32, 13))
        lifted = builder.fadd(builder.bitcast(size, value.type), _constant(ir.FloatType(), 0.5))
        subnormal = builder.sub(builder.bitcast(lifted, words), _constant(I32, 0x3F000000))
        small = builder.icmp_signed("<", size, _constant(I32, 0x38800000))
        sign = builder.and_(builder.lshr(bits, _constant(I32, 16)), _constant(I32, 0x8000))
        half = builder.or_(sign, builder.select(small, subnormal, normal))
        return builder.trunc(half, ir.VectorType(I16, LANES))

    return _lane_wise(lanes, VECTORS[types.int16](value))


@intrinsic
def to_bytes(typing: Any, value: Any) -> Any:
    """Low bytes of 16-bit lanes."""

    def lanes(builder: Any, value: Any) -> Any:
        return builder.trunc(value, ir.VectorType(I8, LANES))

    return _lane_wise(lanes, VECTORS[types.uint8](value))


@intrinsic
def store_interleaved(typing: Any, array: Any, offset: Any, r: Any, g: Any, b: Any) -> Any:
    """Write r[0], g[0], b[0], r[1], ... to `array[offset:offset + 96]`; no bounds check."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, offset, r, g, b = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        both = _shuffle(builder, r, g, list(range(2 * LANES)))
        third = _shuffle(builder, b, b, list(range(2 * LANES)))
        for part in range(3):
            places = range(part * LANES, (part + 1) * LANES)
            mixed = _shuffle(builder, both, third, [i // 3 + i % 3 * LANES for i in places])
            start = builder.add(offset, ir.Constant(offset.type, part * LANES))
            address = builder.bitcast(builder.gep(data, [start]), mixed.type.as_pointer())
            builder.store(mixed, address).align = signature.args[0].dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.int64, r, g, b), emit
