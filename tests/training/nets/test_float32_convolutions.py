"""Gradients in bf16 on a CPU are correct, also for 1 x 1 maps."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from patchmill.training.nets.float32_convolutions import Float32OnTinyMaps, keep_in_float32


@pytest.mark.parametrize("side", [1, 2, 5])
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_those_of_float32(side: int, channels_last: bool) -> None:
    torch.manual_seed(side)
    plain = nn.Sequential(nn.Conv2d(48, 96, 3, 2, 1, bias=False))
    if channels_last:
        plain = plain.to(memory_format=torch.channels_last)
    kept = copy.deepcopy(plain)
    keep_in_float32(kept)
    x = torch.randn(64, 48, side, side).bfloat16().float()
    expected = plain(x)
    slope = torch.randn_like(expected)
    expected.backward(slope)
    junk = [torch.full((n,), torch.nan) for n in (1000, 20_000, 41_472, 100_000)]
    del junk  # memory that is not written shows
    with torch.autocast("cpu", torch.bfloat16):
        found = kept(x)
    found.backward(slope.to(found.dtype))
    ours, right = kept[0].weight.grad, plain[0].weight.grad
    assert ours is not None and right is not None
    torch.testing.assert_close(ours, right, rtol=0.05, atol=0.02 * right.abs().max().item())
    assert found.dtype == (torch.float32 if side == 1 else torch.bfloat16)


def test_a_resnet_trains_on_views_of_16_pixels() -> None:
    network = timm.create_model("test_resnet", num_classes=0)
    weights = list(network.state_dict())
    keep_in_float32(network)
    assert list(network.state_dict()) == weights
    kept = [one for one in network.modules() if isinstance(one, Float32OnTinyMaps)]
    assert kept and all(one.stride != (1, 1) for one in kept)
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(32, 3, 16, 16)).float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert type(copy.deepcopy(kept[0])) is Float32OnTinyMaps
