"""Gradient clipping of each parameter separately."""

from __future__ import annotations

import torch
from torch import nn

from patchmill.training.optim.clipping import clip_each


def test_each_gradient_is_clipped_by_itself():
    """clip_gradients of facebookresearch/dino, utils.py."""
    torch.manual_seed(0)
    params = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2, 2, 2))]
    for param, size in zip(params, (100.0, 0.1, 3.0), strict=True):
        param.grad = size * torch.randn_like(param)
    expected = []
    for param in params:
        coefficient = 3.0 / (param.grad.norm(2) + 1e-6)
        expected.append(param.grad * coefficient if coefficient < 1 else param.grad.clone())
    clip_each([*params, nn.Parameter(torch.zeros(2))], 3.0)
    for param, grad in zip(params, expected, strict=True):
        torch.testing.assert_close(param.grad, grad)
    assert params[0].grad.norm() <= 3.0
