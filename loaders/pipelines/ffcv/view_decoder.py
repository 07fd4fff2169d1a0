"""FFCV operation that decodes an image once and renders all its views in FFCV's compiled code."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ffcv.pipeline.compiler import Compiler

from patchmill.kernels.views import layout
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import ROW, Target
from patchmill.loaders.common.errors import MillError, memory_error
from patchmill.loaders.common.shortage import shortage
from patchmill.loaders.decode.decoder import MAX_PIXELS, BadImage, decode
from patchmill.loaders.files import mapped
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.order.permutation import MOST_SUBSTITUTES
from patchmill.loaders.pipelines.ffcv import lane as lanes
from patchmill.loaders.pipelines.ffcv.compiled import EpochOperation, Memory
from patchmill.loaders.pipelines.ffcv.pasting import Pasting
from patchmill.loaders.pipelines.memory import SMALLER
from patchmill.loaders.plan import draw
from patchmill.loaders.sources import Source

MAX_IMAGE_BYTES = 64 << 20  # of a lane's decode buffer; larger images are decoded in Python

Array = np.ndarray
BatchArrays = tuple[Array, Array, Array, Array, Array]  # pixels, ids, shapes, rows, lane counts


class ViewDecoder(EpochOperation):
    """Base of `MultiView`, and the operation of pipeline `ffcv`.

    The epoch number is passed along with its memory, so that overlapping epochs do not mix.
    """

    ledger: Ledger

    def __init__(
        self,
        laws: np.ndarray,
        targets: Sequence[Target],
        seed: int,
        dtype: torch.dtype,
        channels_last: bool,
        source: Source | None,
        pasting: Pasting | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__()
        self.laws, self.targets, self.seed = laws, targets, seed
        self.dtype, self.channels_last, self.max_pixels = dtype, channels_last, max_pixels
        self.error: BaseException | None = None  # raised in the fallback; ends the batch
        self._source, self.pasting = source, pasting
        self._files = None if source is None else (str(getattr(source, "path", "")),)
        self._decoded: dict[tuple[int, int], np.ndarray] = {}  # by thread and role: Python's images
        self._fallback = lanes.FALLBACK(self._decode)

    def check(self, ids: np.ndarray) -> None:
        """Raise the error that ended the batch; a negative id marks a missing sample."""
        mapped.check(self._files)
        if error := self.error or (self.pasting and self.pasting.error):
            raise memory_error(error, "another batch", SMALLER) or error
        if (ids < 0).any():
            raise MillError(
                f"no readable sample was found in {MOST_SUBSTITUTES} draws to replace one; "
                f"see {self.ledger.path}"
            )

    def memory(self, epoch: int) -> Memory:
        """Shape and dtype of a sample's arrays: pixels, id, shape, rows, and the epoch."""
        return [
            ((layout.elements(self.targets, 1),), _number(self.dtype)),
            ((1,), np.dtype("i8")),
            ((2,), np.dtype("i4")),
            ((len(self.laws) * ROW.itemsize,), np.dtype("u1")),
            ((0, epoch), np.dtype("u1")),  # no bytes: the shape carries the epoch
        ]

    def generate_code(self) -> Callable[..., BatchArrays]:
        lane, count, each = self._lane(), Compiler.num_threads, Compiler.get_iterator()

        def make_batch(indices, memory, metadata, storage):  # type: ignore[no-untyped-def]
            pixels, ids, shapes, rows, empty = memory
            counter, epoch = np.zeros(1, np.int64), empty.shape[2]
            counts = np.zeros((count, lanes.COUNTED), np.int64)
            for i in each(count):
                lane(
                    counter, indices, metadata, storage, epoch, pixels, ids, shapes, rows, counts[i]
                )
            return pixels, ids, shapes, rows, counts

        make_batch.is_parallel = True  # type: ignore[attr-defined]
        return make_batch

    def _lane(self) -> Any:
        height, width = (self.metadata[side].astype(np.int64) for side in ("height", "width"))
        sizes = 3 * height * width
        fits = sizes <= min(MAX_IMAGE_BYTES, 3 * self.max_pixels)
        largest = max(target.size for target in self.targets)
        tall, wide = height.max(where=fits, initial=1), width.max(where=fits, initial=1)
        return lanes.compile_lane(
            lanes.LaneConstants(
                seed=self.seed,
                laws=self.laws,
                slots=render.slots(self.targets, 1, self.dtype == torch.uint8),
                number=_number(self.dtype),
                half=self.dtype == torch.float16,
                channels_last=self.channels_last,
                max_pixels=self.max_pixels,
                largest_view=largest,
                image_bytes=int(sizes.max(where=fits, initial=3)),
                scratch_bytes=int(render.scratch_bytes(int(tall), int(wide), largest)) + 64,
                read=self.memory_read,
                fallback=self._fallback,
                pasting=None if self.pasting is None else self.pasting.constants,
            )
        )

    def _decode(self, id: int, address: int, size: int, shape: int, role: int) -> int:
        """Decode in Python what compiled code cannot; see `lanes.FALLBACK` for the arguments."""
        try:
            if self.error is not None:
                return lanes.FAILED
            if id in self.ledger:
                return lanes.UNREADABLE
            try:
                data = self._source.read(id) if self._source else ctypes.string_at(address, size)
                image = decode(data, max_pixels=self.max_pixels)
                if (side := max(image.shape)) > draw.MAX_SIDE:
                    raise BadImage(f"a side of {side} pixels is too long")
            except (BadImage, OSError) as error:
                if shortage(error):  # not the sample's fault
                    raise
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                self.ledger.record(id, self._where(id), reason)
                return lanes.UNREADABLE
            (ctypes.c_int32 * 2).from_address(shape)[:] = list(image.shape[:2])
            self._decoded[threading.get_ident(), role] = image
            return image.ctypes.data
        except BaseException as error:  # exceptions cannot pass through compiled code
            self.error = error
            return lanes.FAILED

    def _where(self, id: int) -> str:
        return self._source.where(id) if self._source else f"sample {id} of FFCV's file"


def _number(dtype: torch.dtype) -> np.dtype:
    """NumPy's type of the same size; NumPy has no bfloat16."""
    numpy_types = {
        torch.float32: "f4",
        torch.uint8: "u1",
        torch.float16: "u2",
        torch.bfloat16: "u2",
    }
    if dtype not in numpy_types:
        raise MillError(f"dtype must be one of {', '.join(map(str, numpy_types))}, not {dtype!r}")
    return np.dtype(numpy_types[dtype])
