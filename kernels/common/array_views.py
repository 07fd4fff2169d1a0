"""Views of flat arrays as other types and shapes, in compiled code.

Numba's `array.view(dtype)` also compiles checks with error messages, about 0.1 s per pair of
dtypes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array


@intrinsic
def as_type(typing: Any, array: Any, dtype: Any) -> Any:
    """`array.view(dtype)` of a flat, contiguous array; spare bytes at the end are dropped."""
    viewed = array.copy(dtype=dtype.dtype)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = context.make_array(array)(context, builder, arguments[0])
        target = context.make_array(viewed)(context, builder)
        size = ir.Constant(source.nitems.type, viewed.dtype.bitwidth // 8)
        count = builder.udiv(builder.mul(source.nitems, source.itemsize), size)
        populate_array(
            target,
            data=builder.bitcast(source.data, target.data.type),
            shape=[count],
            strides=[size],
            itemsize=size,
            meminfo=source.meminfo,
            parent=source.parent,
        )
        return impl_ret_borrowed(context, builder, viewed, target._getvalue())

    return viewed(array, dtype), emit


@intrinsic
def image_at(typing: Any, address: Any, height: Any, width: Any) -> Any:
    """The uint8 [height, width, 3] image at an address, without a reference to its owner."""
    image = types.Array(types.uint8, 3, "C")

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, height, width = arguments
        target = context.make_array(image)(context, builder)
        one, three = (ir.Constant(width.type, number) for number in (1, 3))
        populate_array(
            target,
            data=builder.inttoptr(address, target.data.type),
            shape=[height, width, three],
            strides=[builder.mul(width, three), three, one],
            itemsize=one,
            meminfo=None,
        )
        return target._getvalue()

    return image(types.int64, types.int64, types.int64), emit
