"""float16 and bfloat16 conversions equal torch's, for every value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchmill.kernels.common.floats16 import STORAGE_DTYPE, as_numpy, store_float, to_float
from patchmill.kernels.common.jit import jit_ieee


@jit_ieee
def up(row, line):  # type: ignore[no-untyped-def]
    for i in range(len(row)):
        line[i] = to_float(row[i])


@jit_ieee
def down(line, row):  # type: ignore[no-untyped-def]
    for i in range(len(row)):
        store_float(row, i, line[i])


@pytest.mark.parametrize("dtype", STORAGE_DTYPE)
def test_every_number(dtype: torch.dtype):
    every = torch.arange(1 << 16).to(torch.uint16).view(dtype)
    found = torch.empty(1 << 16)
    up(as_numpy(every), found.numpy())
    torch.testing.assert_close(found, every.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", STORAGE_DTYPE)
def test_rounding_of_all_exponents_and_of_ties(dtype: torch.dtype):
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    low = [0, 1, 0x0FFF, 0x1000, 0x1001, 0x2000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
    line = torch.from_numpy(np.concatenate([high | np.uint32(rest) for rest in low]))
    line = line.view(torch.float32)
    found = torch.empty(len(line), dtype=dtype)
    down(line.numpy(), as_numpy(found))
    torch.testing.assert_close(found, line.to(dtype), rtol=0, atol=0, equal_nan=True)
