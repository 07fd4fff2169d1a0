"""Vector operations for pixels equal NumPy's and torch's on every lane."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch

from patchmill.kernels.common.simd import LANES, load, splat, store
from patchmill.kernels.common.simd_pixels import (
    add_pairs,
    first_lanes,
    larger,
    magnitude,
    multiply_high,
    smaller,
    store_interleaved,
    subtract_to_zero,
    sum_pairs,
    to_bfloat16,
    to_bytes,
    to_float32,
    to_half,
    where_above,
    where_equal,
)

EVERY = np.arange(-(1 << 15), 1 << 15).astype(np.int16)


@numba.njit(fastmath=True)
def operate(left, right, results):
    for p in range(0, len(left), LANES):
        a, b = load(left, p, splat(np.int16(0))), load(right, p, splat(np.int16(0)))
        store(results[0], p, multiply_high(a, b))
        store(results[1], p, subtract_to_zero(a, b))
        store(results[2], p, smaller(a, b))
        store(results[3], p, larger(a, b))
        store(results[4], p, magnitude(a))
        store(results[5], p, where_equal(a, b, b, splat(np.int16(7))))
        store(results[6], p, where_above(a, b, a, splat(np.int16(7))))


def test_operations():
    rng = np.random.default_rng(0)
    right = np.concatenate([rng.permutation(EVERY), EVERY, EVERY[::-1]])
    left = np.tile(EVERY, 3)
    results = np.zeros((7, len(left)), np.int16)
    operate(left, right, results)
    a, b = left.view(np.uint16).astype(np.int64), right.view(np.uint16).astype(np.int64)
    expected = [
        a * b >> 16,
        np.maximum(a - b, 0),
        np.minimum(a, b),
        np.maximum(a, b),
        np.abs(left.astype(np.int64)),
        np.where(left == right, b, 7),
        np.where(left > right, a, 7),
    ]
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.view(np.uint16), wanted)


@numba.njit(fastmath=True)
def add_up(values, count):
    sums = splat(np.int16(0))
    for p in range(0, len(values), LANES):
        sums = add_pairs(sums, first_lanes(load(values, p, sums), count - p))
    return sum_pairs(sums)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 63, 64, 100, 4096])
def test_sums_of_the_first_lanes(count: int):
    values = np.random.default_rng(1).integers(0, 1 << 16, 4096).astype(np.uint16)
    values[:200] = 65535
    assert add_up(values.view(np.int16), count) == values[:count].sum(dtype=np.int64)


@numba.njit(fastmath=True)
def convert(values, gain, bias, bfloats, halves, low_bytes):
    for p in range(0, len(values), LANES):
        value = load(values, p, splat(np.int16(0)))
        store(bfloats, p, to_bfloat16(value, gain, bias))
        store(halves, p, to_half(to_float32(value)))
        store(low_bytes, p, to_bytes(value))


@pytest.mark.parametrize(
    ("gain", "bias"), [(1.0, 0.0), (2.0**-9, 0.0), (1 / (16320 * 0.229), -0.485 / 0.229)]
)
def test_conversions(gain: float, bias: float):
    gain, bias = np.float32(gain), np.float32(bias)
    bfloats, halves = np.zeros((2, len(EVERY)), np.uint16)
    low_bytes = np.zeros(len(EVERY), np.uint8)
    convert(EVERY, gain, bias, bfloats, halves, low_bytes)
    exact = (EVERY.astype(np.float64) * gain + bias).astype(np.float32)  # rounds once, as the CPU
    assert torch.equal(bfloat16_of(bfloats), torch.from_numpy(exact).bfloat16())
    expected = torch.from_numpy(EVERY.astype(np.float32)).half()
    assert torch.equal(torch.from_numpy(halves).view(torch.float16), expected)
    np.testing.assert_array_equal(low_bytes, EVERY.view(np.uint16) & 255)


def bfloat16_of(bits: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(bits).view(torch.bfloat16)


@numba.njit(fastmath=True)
def small_halves(values, halves):
    for p in range(0, len(values), LANES):
        store(halves, p, to_half(load(values, p, splat(np.float32(0)))))


def test_halves_of_all_magnitudes():
    rng = np.random.default_rng(2)
    values = (rng.uniform(1, 2, 1 << 14) * 2.0 ** rng.integers(-30, 15, 1 << 14)).astype(np.float32)
    values *= rng.choice(np.float32([-1, 1]), len(values))
    halves = np.zeros(len(values), np.uint16)
    small_halves(values, halves)
    expected = torch.from_numpy(values).half()
    assert torch.equal(torch.from_numpy(halves).view(torch.float16), expected)


@numba.njit(fastmath=True)
def interleave(planes, out):
    like = splat(np.int16(0))
    r, g, b = load(planes, 0, like), load(planes, LANES, like), load(planes, 2 * LANES, like)
    store_interleaved(out, 1, r, g, b)


def test_interleaving():
    planes, out = np.arange(3 * LANES).astype(np.int16), np.zeros(3 * LANES + 2, np.int16)
    interleave(planes, out)
    np.testing.assert_array_equal(out[1:-1], planes.reshape(3, LANES).T.ravel())
    assert out[0] == out[-1] == 0
