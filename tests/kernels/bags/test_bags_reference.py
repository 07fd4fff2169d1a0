"""The reference against independent formulas, and gradcheck."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers_bags import make, units

from patchmill.kernels.bags import reference


def test_the_loss_element_by_element():
    z = make(3, 2, 4).double()
    total = 0.0
    for image in range(2):
        bag = z[:, image].numpy()
        mean = bag.mean(0)
        for row in bag:
            total += float(row @ mean) / (np.linalg.norm(row) * np.linalg.norm(mean))
    assert reference.bag_loss(z).item() == pytest.approx(-total / 6, rel=1e-14)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (20, 4, 33)])
def test_loss_by_cosine_similarity(shape: tuple[int, ...]):
    z = make(*shape).double()
    z[0, 0] = 0
    cosine = torch.nn.functional.cosine_similarity(z, z.mean(0), dim=-1)
    torch.testing.assert_close(reference.bag_loss(z), -cosine.mean())


def test_bounds_of_the_loss():
    row = make(1, 5, 8).double()
    torch.testing.assert_close(reference.bag_loss(row.expand(7, 5, 8)).item(), -1.0)
    opposite = torch.cat([row, -row])
    assert abs(reference.bag_loss(opposite).item()) < 1e-12


def test_gradients_of_the_loss():
    assert torch.autograd.gradcheck(reference.bag_loss, make(4, 3, 5).double().requires_grad_())


@pytest.mark.parametrize(("images", "d"), [(1, 1), (5, 3), (3, 5), (4, 4)])
def test_rate_by_singular_values(images: int, d: int):
    z, eps = make(3, images, d).double(), 0.2
    values = torch.linalg.svdvals(z)
    rates = (1 + d / (images * eps) * values**2).log().sum(1) / 2
    torch.testing.assert_close(reference.coding_rate(z, eps), rates)


def test_the_rate_of_orthogonal_rows():
    """EMP-SSL's numbers: each of 4 orthogonal unit rows adds 1/2 log(1 + d / (B eps))."""
    z = torch.eye(4, 6, dtype=torch.float64)
    assert reference.coding_rate(z, 0.2).item() == pytest.approx(2 * math.log(1 + 6 / (4 * 0.2)))


def test_gradients_of_the_rate():
    z = units(2, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: reference.coding_rate(z, 0.2), z)
