"""Decode image files on the device, one call per batch, for libraries without a reader."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from patchmill.loaders.common.errors import MillError

Decode = Callable[[Sequence[Tensor]], list[Tensor]]
"""Decodes encoded bytes, uint8 on the CPU, to RGB, uint8 [3, height, width] on the device."""


def torchcodec(device: str) -> Decode:
    from torchcodec.decoders import decode_jpeg

    return lambda encoded: decode_jpeg(list(encoded), mode="RGB", device=device)


def torchvision(device: str) -> Decode:
    """torchvision's deprecated decoder, for machines without its successor torchcodec."""
    from torchvision.io import ImageReadMode, decode_jpeg

    warnings.filterwarnings("ignore", "The image decoding and encoding capabilities")
    return lambda encoded: decode_jpeg(list(encoded), ImageReadMode.RGB, device)


DECODERS: dict[str, Callable[[str], Decode]] = {
    "torchcodec": torchcodec,
    "torchvision": torchvision,
}


def decoder(device: str, probe: Sequence[Tensor]) -> Decode:
    """The first installed decoder that can decode `probe` on this machine."""
    problems = []
    for name, make in DECODERS.items():
        try:
            decode = make(device)
            decode(probe)
        except (ImportError, OSError, RuntimeError) as error:
            problems.append(f"{name}: {str(error).splitlines()[0]}")
        else:
            return decode
    raise MillError(f"no library decodes JPEGs on {device}: {'; '.join(problems)}")


def batches(
    paths: Sequence[str], workers: int, batch_size: int, device: str
) -> Generator[list[Tensor], None, None]:
    """Endless batches of decoded images; the next files are read while a batch is in use."""
    decode = decoder(device, [_read(paths[0])])
    order = _shuffled(len(paths))
    with ThreadPoolExecutor(workers) as pool:

        def start_reading() -> Iterator[Tensor]:
            return pool.map(_read, [paths[i] for i in itertools.islice(order, batch_size)])

        next_batch = start_reading()
        while True:
            encoded, next_batch = list(next_batch), start_reading()
            yield decode(encoded)


def _shuffled(count: int) -> Iterator[int]:
    while True:
        yield from torch.randperm(count).tolist()


def _read(path: str) -> Tensor:
    return torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8)
