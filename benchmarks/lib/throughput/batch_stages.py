"""Single stages of a loader, one batch at a time: decoders of lists, and the renderer.

The images are encoded in host memory or decoded on the device, and repeat endlessly. On a GPU these
are upper bounds on a loader's rate.
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

DALI_PREFETCH = 3  # batches in flight in DALI
RENDER_QUEUE = 3  # batches of views that the GPU may lag behind
_DECISION_BATCHES = 8  # batches of decision rows, drawn in advance


class BatchIndices:
    """Indices of `count` images, in batches, repeating endlessly."""

    def __init__(self, count: int, batch_size: int) -> None:
        self._order, self._batch_size = itertools.cycle(range(count)), batch_size

    def next(self) -> list[int]:
        return list(itertools.islice(self._order, self._batch_size))


# ----------------------------------------------------------------------------------------- decoders


def decode_lists(decode: ragged.Decode, images: Sequence[bytes], batch_size: int) -> peers.Batches:
    """Decode with a library function from list to list."""
    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in images]
    indices = BatchIndices(len(encoded), batch_size)
    while True:
        decode([encoded[i] for i in indices.next()])
        yield None


def dali_decoder(
    images: Sequence[bytes], threads: int, batch_size: int, device: torch.device
) -> BatchDecoder:
    """Our DALI decoder; on a GPU, the hardware JPEG unit gets the share measured to be fastest."""
    hardware = None
    if device.type == "cuda":
        from patchmill.loaders.pipelines.dali.hardware_share import hardware_share

        probe = [np.frombuffer(data, np.uint8) for data in images[:batch_size]]
        hardware = hardware_share(device, threads, probe)
    return BatchDecoder(
        batch_size, device=device, threads=threads, ahead=DALI_PREFETCH, hardware=hardware
    )


def decode_with_dali(
    decoder: BatchDecoder, images: Sequence[bytes], batch_size: int
) -> peers.Batches:
    """Decode with several batches in flight, waiting for the oldest."""
    for batch in _decoded_batches(decoder, images, batch_size, None):
        del batch  # returns its memory to DALI
        yield None


def _decoded_batches(
    decoder: BatchDecoder,
    images: Sequence[bytes],
    batch_size: int,
    stream: torch.cuda.Stream | None,
) -> Iterator[DecodedBatch]:
    encoded = [np.frombuffer(data, np.uint8) for data in images]
    indices = BatchIndices(len(encoded), batch_size)
    try:
        for number in itertools.count():
            decoder.submit([encoded[i] for i in indices.next()])
            if number >= DALI_PREFETCH - 1:
                yield decoder.take(stream)
    finally:
        decoder.close()


# -------------------------------------------------------------------------------------------- views


def decode_and_render(
    decoder: BatchDecoder,
    images: Sequence[bytes],
    recipe: Recipe,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> peers.Batches:
    """Decode with DALI, draw decisions, render in place: one stream, one thread."""
    from patchmill.kernels.views.gpu import render

    targets = draw.targets(recipe)
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    queue: deque[tuple[torch.cuda.Event | None, DecodedBatch]] = deque()
    for number, decoded in enumerate(_decoded_batches(decoder, images, batch_size, stream)):
        rows = _decision_rows(recipe, number, decoded.images)
        with torch.cuda.stream(stream) if stream else nullcontext():
            out = torch.empty(layout.elements(targets, batch_size), dtype=dtype, device=device)
            render.render_into(out, decoded.images, rows, targets)
        queue.append((stream.record_event() if stream else None, decoded))
        if len(queue) > RENDER_QUEUE:  # done long ago, unless the GPU is the slower of the two
            if rendered := queue.popleft()[0]:
                rendered.synchronize()
        yield out


def render_alone(
    images: Sequence[bytes],
    recipe: Recipe,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> peers.Batches:
    """Render decoded images on the device with decision rows drawn in advance."""
    from patchmill.kernels.views.gpu import render

    pixels = [torch.from_numpy(decode(data)).to(device) for data in images]
    targets, indices = draw.targets(recipe), BatchIndices(len(images), batch_size)
    batches = []
    for number in range(_DECISION_BATCHES):
        batch_images = Images.of([pixels[i] for i in indices.next()])
        batches.append((batch_images, _decision_rows(recipe, number, batch_images)))
    for batch_images, rows in itertools.cycle(batches):
        out = torch.empty(layout.elements(targets, batch_size), dtype=dtype, device=device)
        render.render_into(out, batch_images, rows, targets)
        yield out


def _decision_rows(recipe: Recipe, number: int, images: Images) -> np.ndarray:
    count = len(images.shapes)
    ids = np.arange(number * count, (number + 1) * count)
    return draw.draw(recipe, 0, 0, ids, images.shapes).rows
