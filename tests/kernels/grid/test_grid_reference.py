"""The reference against torch.Tensor.unfold and the normalisation formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.kernels.grid import reference

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
sides = st.integers(1, 12)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, st.integers(1, 5))
def test_a_grid_is_unfold(height: int, width: int, size: int, stride: int):
    height, width = height + size - 1, width + size - 1
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(size))
    expected = images.unfold(2, size, stride).unfold(3, size, stride)
    expected = expected.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, size, size)
    assert torch.equal(reference.grid(list(images), size, stride), expected)


def test_bytes_become_0_to_1_and_are_normalised():
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, 16, 16)
    found = reference.grid([image], 16, 16, MEAN, STD)[0]
    for c in range(3):
        for v in (0, 1, 77, 255):
            expected = (v / 255 - MEAN[c]) / STD[c]
            assert found[c].flatten()[v].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
