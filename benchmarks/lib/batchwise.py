"""What is measured a batch at a time, without a loader: decoders that take lists, and the renderer.

The images are encoded and in the host's memory, or decoded and on the device; batches go over them
again and again. On a GPU these stand for what a loader could reach at best.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from patchmill.benchmarks import peers
from patchmill.benchmarks.peers import ragged
from patchmill.kernels.views import layout
from patchmill.kernels.views.gpu.tables import Images
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.pipelines.dali.decoder import BatchDecoder, DecodedBatch
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe

AHEAD = 3  # batches under way in DALI
_PLANS = 8  # batches of decisions, drawn beforehand
QUEUED = 3  # batches of views that a GPU may be behind


class Places:
    """The batches' images: numbers of `count` images, over and over."""

    def __init__(self, count: int, batch_size: int) -> None:
        self._order, self._batch_size = itertools.cycle(range(count)), batch_size

    def next(self) -> list[int]:
        return list(itertools.islice(self._order, self._batch_size))


# ----------------------------------------------------------------------------------------- decoders


def by_list(decode: ragged.Decode, images: Sequence[bytes], batch_size: int) -> peers.Batches:
    """By a library that takes a list and returns one."""
    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in images]
    places = Places(len(encoded), batch_size)
    while True:
        decode([encoded[i] for i in places.next()])
        yield None


def dali(
    images: Sequence[bytes], threads: int, batch_size: int, device: torch.device
) -> BatchDecoder:
    """Our own decoder: on a GPU, its JPEG unit gets the share that was measured to be the best."""
    hardware = None
    if device.type == "cuda":
        from patchmill.loaders.pipelines.dali.hardware_share import hardware_share

        some = [np.frombuffer(data, np.uint8) for data in images[:batch_size]]
        hardware = hardware_share(device, threads, some)
    return BatchDecoder(batch_size, device=device, threads=threads, ahead=AHEAD, hardware=hardware)


def by_dali(decoder: BatchDecoder, images: Sequence[bytes], batch_size: int) -> peers.Batches:
    """With batches under way, of which the oldest is waited for."""
    for batch in _decoded(decoder, images, batch_size, None):
        del batch  # its memory goes back to DALI
        yield None


def _decoded(
    decoder: BatchDecoder,
    images: Sequence[bytes],
    batch_size: int,
    stream: torch.cuda.Stream | None,
) -> Iterator[DecodedBatch]:
    encoded = [np.frombuffer(data, np.uint8) for data in images]
    places = Places(len(encoded), batch_size)
    try:
        for number in itertools.count():
            decoder.submit([encoded[i] for i in places.next()])
            if number >= AHEAD - 1:
                yield decoder.take(stream)
    finally:
        decoder.close()


# -------------------------------------------------------------------------------------------- views


def decode_and_views(
    decoder: BatchDecoder,
    images: Sequence[bytes],
    recipe: Recipe,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> peers.Batches:
    """Decoded by DALI, planned, and rendered where they lie: on one stream, from one thread."""
    from patchmill.kernels.views.gpu import render

    targets = draw.targets(recipe)
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    queued: deque[tuple[torch.cuda.Event | None, DecodedBatch]] = deque()
    for number, decoded in enumerate(_decoded(decoder, images, batch_size, stream)):
        rows = _rows(recipe, number, decoded.images)
        with torch.cuda.stream(stream) if stream else nullcontext():
            out = torch.empty(layout.elements(targets, batch_size), dtype=dtype, device=device)
            render.render_into(out, decoded.images, rows, targets)
        queued.append((stream.record_event() if stream else None, decoded))
        if len(queued) > QUEUED:  # long done, unless the GPU is the slower of the two
            if over := queued.popleft()[0]:
                over.synchronize()
        yield out


def views_alone(
    images: Sequence[bytes],
    recipe: Recipe,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> peers.Batches:
    """Rendered from images on the device, by decisions that are drawn already."""
    from patchmill.kernels.views.gpu import render

    pixels = [torch.from_numpy(decode(data)).to(device) for data in images]
    targets, places = draw.targets(recipe), Places(len(images), batch_size)
    batches = []
    for number in range(_PLANS):
        own = Images.of([pixels[i] for i in places.next()])
        batches.append((own, _rows(recipe, number, own)))
    for own, rows in itertools.cycle(batches):
        out = torch.empty(layout.elements(targets, batch_size), dtype=dtype, device=device)
        render.render_into(out, own, rows, targets)
        yield out


def _rows(recipe: Recipe, number: int, images: Images) -> np.ndarray:
    count = len(images.shapes)
    ids = np.arange(number * count, (number + 1) * count)
    return draw.draw(recipe, 0, 0, ids, images.shapes).rows
