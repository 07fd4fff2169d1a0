"""The operation that FFCV compiles: it decodes an image once and renders all its views."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.state import State

from patchmill.kernels.views import layout
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import ROW, Target
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.order.permutation import MOST_SUBSTITUTES
from patchmill.loaders.pipelines.ffcv import lane as ffcv_lane
from patchmill.loaders.plan import draw
from patchmill.loaders.sources import Source

MOST_KEPT = 64 << 20  # bytes of a lane's image; larger ones are decoded in Python

Array = np.ndarray
Made = tuple[Array, Array, Array, Array, Array]  # pixels, ids, shapes, rows, and `spent`


class ViewDecoder(SimpleRGBImageDecoder):
    """What an epoch is called is in its memory, so that epochs under way do not mix."""

    ledger: Ledger

    def __init__(
        self,
        laws: np.ndarray,
        targets: Sequence[Target],
        seed: int,
        dtype: torch.dtype,
        channels_last: bool,
        source: Source | None,
    ) -> None:
        super().__init__()
        self.laws, self.targets, self.seed = laws, targets, seed
        self.dtype, self.channels_last = dtype, channels_last
        self.error: BaseException | None = None  # the first that a batch could not go on for
        self._source = source
        self._kept: dict[int, np.ndarray] = {}  # by thread: the last image that Python decoded
        self._rescue = ffcv_lane.RESCUE(self._decode)

    def check(self, ids: np.ndarray) -> None:
        """Raise what a batch with these ids could not go on for."""
        if (ids < 0).any():
            raise self.error or MillError(
                f"no readable sample was found in {MOST_SUBSTITUTES} draws to replace one; "
                f"see {self.ledger.path}"
            )

    def memory(self, epoch: int) -> list[tuple[tuple[int, ...], np.dtype]]:
        """Shape and type of what a sample needs: pixels, id, shape, rows, and the epoch."""
        return [
            ((layout.elements(self.targets, 1),), _number(self.dtype)),
            ((1,), np.dtype("i8")),
            ((2,), np.dtype("i4")),
            ((len(self.laws) * ROW.itemsize,), np.dtype("u1")),
            ((0, epoch), np.dtype("u1")),  # no bytes: only the shape says something
        ]

    def declare_state_and_memory(
        self, previous_state: State
    ) -> tuple[State, tuple[AllocationQuery, ...]]:
        needs = self.memory(self.begin())
        state = replace(previous_state, jit_mode=True, shape=needs[0][0], dtype=needs[0][1])
        return state, tuple(AllocationQuery(shape, dtype) for shape, dtype in needs)

    def begin(self) -> int:
        """The number of the epoch that FFCV wants memory for."""
        return 0

    def generate_code(self) -> Callable[..., Made]:
        lane, lanes, each = self._lane(), Compiler.num_threads, Compiler.get_iterator()

        def make(indices, memory, metadata, storage):  # type: ignore[no-untyped-def]
            pixels, ids, shapes, rows, empty = memory
            counter, epoch = np.zeros(1, np.int64), empty.shape[2]
            spent = np.zeros((lanes, 1 + len(ffcv_lane.STAGES)), np.int64)
            for i in each(lanes):
                lane(
                    counter, indices, metadata, storage, epoch, pixels, ids, shapes, rows, spent[i]
                )
            return pixels, ids, shapes, rows, spent

        make.is_parallel = True  # type: ignore[attr-defined]
        return make

    def _lane(self) -> Any:
        height, width = (self.metadata[side].astype(np.int64) for side in ("height", "width"))
        sizes = 3 * height * width
        kept = sizes <= MOST_KEPT
        largest = max(target.size for target in self.targets)
        tall, wide = height.max(where=kept, initial=1), width.max(where=kept, initial=1)
        return ffcv_lane.compiled(
            ffcv_lane.Work(
                seed=self.seed,
                laws=self.laws,
                slots=render.slots(self.targets, 1, self.dtype == torch.uint8),
                number=_number(self.dtype),
                half=self.dtype == torch.float16,
                channels_last=self.channels_last,
                largest=largest,
                room=int(sizes.max(where=kept, initial=3)),
                scratch=int(render.pool_bytes(int(tall), int(wide), largest)) + 64,
                read=self.memory_read,
                rescue=self._rescue,
            )
        )

    def _decode(self, id: int, address: int, size: int, shape: int) -> int:
        """The rescue of a sample that compiled code cannot decode; see `ffcv_lane.RESCUE`."""
        try:
            if self.error is not None:
                return ffcv_lane.FAILED
            if id in self.ledger:
                return ffcv_lane.BAD
            try:
                data = self._source.read(id) if self._source else ctypes.string_at(address, size)
                image = decode(data)
                if (side := max(image.shape)) > draw.MAX_SIDE:
                    raise BadImage(f"a side of {side} pixels is too long")
            except (BadImage, OSError) as error:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                self.ledger.record(id, self._where(id), reason)
                return ffcv_lane.BAD
            (ctypes.c_int32 * 2).from_address(shape)[:] = list(image.shape[:2])
            self._kept[threading.get_ident()] = image
            return image.ctypes.data
        except BaseException as error:  # nothing can be raised through compiled code
            self.error = error
            return ffcv_lane.FAILED

    def _where(self, id: int) -> str:
        return self._source.where(id) if self._source else f"sample {id} of FFCV's file"


def _number(dtype: torch.dtype) -> np.dtype:
    """The type of number that stands for it in numpy, which has no bfloat16."""
    known = {torch.float32: "f4", torch.uint8: "u1", torch.float16: "u2", torch.bfloat16: "u2"}
    if dtype not in known:
        raise MillError(f"dtype must be one of {', '.join(map(str, known))}, not {dtype!r}")
    return np.dtype(known[dtype])
