"""Attention pooling against its formula, and positions on a grid."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from patchmill.loaders.common.errors import MillError
from patchmill.training.nets.attention_pooling import AttentionPooling, GridPositions

WIDTH, HEADS = 8, 2


def pooling(**changes):
    torch.manual_seed(0)
    options = dict(blocks=3, heads=HEADS, hidden=10, dropout=0.0, pre_norm=False)
    network = AttentionPooling(WIDTH, **(options | changes)).double().eval()
    with torch.no_grad():  # so that norms scale and shift
        for param in network.parameters():
            param.add_(0.3 * torch.randn_like(param))
    return network


def attention(layer, x):
    """softmax(QK' / sqrt(width of a head)) V of every head, and the output layer; one set."""
    q, k, v = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, dim=-1)
    size = WIDTH // HEADS
    heads = [slice(size * head, size * head + size) for head in range(HEADS)]
    mixed = [
        torch.softmax(q[:, head] @ k[:, head].T / math.sqrt(size), dim=-1) @ v[:, head]
        for head in heads
    ]
    return layer.out_proj(torch.cat(mixed, dim=-1))


def feed_forward(layer, x):
    hidden = layer.linear1(x)
    return layer.linear2(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_summary_is_the_transformers_output_at_its_first_token(pre_norm):
    network = pooling(pre_norm=pre_norm)
    vectors = torch.randn(3, 5, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        for one, found in zip(vectors, network(vectors), strict=True):
            x = torch.cat([network.u0[0], one])
            for layer in network.layers[:3]:
                if pre_norm:
                    x = x + attention(layer.self_attn, layer.norm1(x))
                    x = x + feed_forward(layer, layer.norm2(x))
                else:
                    x = layer.norm1(x + attention(layer.self_attn, x))
                    x = layer.norm2(x + feed_forward(layer, x))
            x = network.layers[3](x) if pre_norm else x
            torch.testing.assert_close(found, x[0])


def test_the_order_of_the_vectors_makes_no_difference_but_they_do():
    network = pooling().float()
    vectors = torch.randn(4, 12, WIDTH)
    summary = network(vectors)
    for seed in range(3):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(network(vectors[:, order]), summary, atol=1e-5, rtol=0)
    assert not torch.allclose(network(vectors[:, 1:]), summary, atol=1e-2)


def test_blocks_begin_with_weights_of_their_own():
    first, second, _ = AttentionPooling(
        WIDTH, blocks=3, heads=2, hidden=10, dropout=0.1, pre_norm=False
    ).layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_heads_must_divide_the_width():
    with pytest.raises(MillError, match=r"method.heads=5 must divide .* 8 features: use 4"):
        pooling(heads=5)


def test_small_grids_have_a_vector_for_each_cell_and_large_ones_for_rows_and_columns():
    table = GridPositions(4, 4, WIDTH)
    assert [tuple(part.shape) for part in table.parts] == [(4, 4, WIDTH)]
    torch.testing.assert_close(table()[4 * 2 + 3], table.parts[0][2, 3])
    large = GridPositions(7, 6, WIDTH)
    rows, columns = large.parts
    assert (rows.numel(), columns.numel()) == (7 * WIDTH, 6 * WIDTH) and large().shape[0] == 42
    torch.testing.assert_close(large()[6 * 2 + 3], rows[2, 0] + columns[0, 3])
    assert len(GridPositions(7, 7, WIDTH, "table").parts) == 1
    assert len(GridPositions(2, 2, WIDTH, "rows_columns").parts) == 2
