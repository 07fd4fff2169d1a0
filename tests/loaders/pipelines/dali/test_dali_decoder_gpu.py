"""DALI's decoder on a GPU: nearly the same pixels, failures that stay with their batch, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers_dali_jpegs import BAD, PLAIN, jpeg

pytest.importorskip("nvidia.dali", reason="needs DALI")

from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.pipelines.dali.decoder import (
    BatchDecoder,
    Refused,
    find_undecodable,
)

pytestmark = pytest.mark.gpu

MOST = 48  # more than DALI parses in one thread


def pixels(batch, device: torch.device) -> list[np.ndarray]:
    """The images of a batch on a GPU, by their addresses."""

    class Raw:
        def __init__(self, pointer: int, shape: tuple[int, ...]) -> None:
            self.__cuda_array_interface__ = {
                "data": (pointer, True),
                "shape": shape,
                "typestr": "|u1",
                "version": 3,
            }

    table = zip(batch.images.pointers.tolist(), batch.images.shapes.tolist(), strict=True)
    raw = [Raw(pointer, (*shape, 3)) for pointer, shape in table]
    return [torch.as_tensor(one, device=device).cpu().numpy() for one in raw]


@pytest.mark.parametrize("hardware", [0.0, 0.5, 1.0, None])
@pytest.mark.parametrize("synchronous", [True, False])
def test_a_gpu_decodes_nearly_the_same(hardware: float | None, synchronous: bool) -> None:
    device = torch.device("cuda")
    decoder = BatchDecoder(MOST, device=device, threads=2, ahead=2, hardware=hardware)
    names = [name for name in PLAIN if name != "low quality"]
    encoded = [PLAIN[name] for name in names] * 3
    for _ in range(2):
        decoder.submit(encoded)
    for _ in range(2):
        stream = torch.cuda.Stream(device)
        with torch.cuda.stream(stream):
            batch = decoder.take(None if synchronous else stream)
            found = pixels(batch, device)
        for name, one, image in zip(names * 3, encoded, found, strict=True):
            expected = decode(one.tobytes()).astype(int)
            assert image.shape == expected.shape
            exact = name in ("4:4:4", "grey", "stored as RGB", "one pixel")
            assert np.abs(image - expected).mean() < (1 if exact else 3), name


def test_failures_stay_with_their_batch() -> None:
    device = torch.device("cuda")
    decoder = BatchDecoder(MOST, device=device, threads=2, ahead=3)
    good = [jpeg(seed) for seed in range(MOST)]
    bad = list(good)
    bad[7] = BAD["half a header"]
    for encoded in (good, bad, good):
        decoder.submit(encoded)
    first = pixels(decoder.take(), device)
    with pytest.raises(Refused):
        decoder.take()
    for one, again in zip(first, pixels(decoder.take(), device), strict=True):
        np.testing.assert_array_equal(one, again)
    assert find_undecodable(bad, device, 2) == [7]


def test_held_batches_share_no_memory_with_later_ones() -> None:
    """On a stream kept busy, as by a training step."""
    device = torch.device("cuda")
    decoder = BatchDecoder(8, device=device, threads=2, ahead=2)
    batches = [[jpeg(10 * k + i, 50 + k, 60 + i) for i in range(8)] for k in range(5)]
    stream, held, expected = torch.cuda.Stream(device), [], []
    for encoded in batches:
        decoder.submit(encoded)
        batch = decoder.take(stream)
        with torch.cuda.stream(stream):
            expected.append(pixels(batch, device))
            torch.cuda._sleep(10_000_000)
        held.append(batch)
    for _ in range(20):
        decoder.submit(batches[0][::-1])
        decoder.take(stream)
    with torch.cuda.stream(stream):
        for batch, images in zip(held, expected, strict=True):
            for one, again in zip(images, pixels(batch, device), strict=True):
                np.testing.assert_array_equal(one, again)


def test_gpu_memory_does_not_grow() -> None:
    device = torch.device("cuda")
    decoder = BatchDecoder(16, device=device, threads=2, ahead=2)
    encoded = [jpeg(i, 300 + 20 * i, 400) for i in range(16)]
    free = []
    for turn in range(300):
        decoder.submit(encoded[: 1 + turn % 16])
        decoder.take(torch.cuda.current_stream(device))
        free.append(torch.cuda.mem_get_info(device)[0])
    torch.cuda.synchronize(device)
    assert free[-1] > free[100] - (64 << 20)
