"""A kernel for the tests of machine code counts."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def copy_row(source, out, pitch, SIZE: tl.constexpr):
    at = tl.program_id(0) * pitch + tl.arange(0, SIZE)
    tl.store(out + at, tl.load(source + at))
