"""Copies of images within device memory, run by Triton's interpreter on CPU tensors.

TRITON_INTERPRET=1 python -m pytest tests/kernels/views/gpu_copy_interpreted.py
"""

from __future__ import annotations

import helpers_interpreter
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from patchmill.kernels.views.gpu.copy import PART, copy_images

CPU = torch.device("cpu")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([1, 3, 48, PART - 1, PART, PART + 1, 3 * PART]), max_size=5))
def test_every_byte_arrives_and_no_other_changes(sizes: list[int]) -> None:
    """At addresses of any alignment, with one-byte gaps between the images."""
    rng = np.random.default_rng(len(sizes))
    source = torch.from_numpy(rng.integers(1, 256, sum(sizes) + len(sizes), np.uint8))
    target = torch.zeros(len(source) + 1, dtype=torch.uint8)
    starts = np.cumsum([0, *(size + 1 for size in sizes)], dtype=np.int64)[:-1]
    order = rng.permutation(len(sizes))
    lengths = np.array(sizes, np.int64)
    copy_images(
        source.data_ptr() + starts[order],
        target.data_ptr() + 1 + starts[order],
        lengths[order],
        CPU,
    )
    expected = torch.zeros_like(target)
    for start, size in zip(starts.tolist(), sizes, strict=True):
        expected[1 + start : 1 + start + size] = source[start : start + size]
    assert torch.equal(target, expected)
