"""`MultiView`: inside FFCV's own loader, an image is decoded once and all its views are rendered.

    views = MultiView("dino", seed=0)
    loader = Loader("train.beton", 256, num_workers=16, order=OrderOption.RANDOM,
                    pipelines={"image": [views], "label": None})
    for (made,) in loader:
        batch = views.batch(made, labels)  # labels: of all samples, in the file's order

FFCV compiles what `generate_code` returns, and calls it for each batch. Its threads are lanes here:
each takes the next sample until none is left, so that a large photo holds nobody up. Pixels are
those of `loaders/decode.py`, plans those of `loaders/plan.py`. What libjpeg-turbo refuses or warns
about is decoded in Python; if that fails too it is listed in the ledger, and the sample that every
pipeline would take stands in for it: `batch.ids` and `batch.labels` are those of what is shown.
"""

from __future__ import annotations

import ctypes
import os
import threading
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.state import State

from patchmill.kernels.views import cpu, layout
from patchmill.kernels.views.rows import ROW
from patchmill.loaders import cache, plan
from patchmill.loaders import recipe as recipes
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.decode import BadImage, decode
from patchmill.loaders.errors import MillError
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.pipelines import ffcv_lane
from patchmill.loaders.sources import Source

MOST_KEPT = 64 << 20  # bytes of a lane's image; larger ones are decoded in Python

Made = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # pixels, ids, shapes, rows


class MultiView(SimpleRGBImageDecoder):
    """Decodes an RGBImageField and renders all views of the recipe: all of the field's pipeline.

    Epochs are counted: each iteration of the loader is the next one. Set `epoch` before an
    iteration to say which it is, as after a restart. With `source`, the Beton of the same file,
    the ledger tells where bad samples lie.
    """

    def __init__(
        self,
        recipe: recipes.Recipe | str | Path,
        seed: int = 0,
        *,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        source: Source | None = None,
        ledger: Ledger | str | Path | None = None,
    ) -> None:
        super().__init__()
        self.recipe, self.seed, self.dtype = recipes.load(recipe), seed, dtype
        self.channels_last = channels_last
        self.epoch = -1  # FFCV asks for memory once when it compiles, and then for each epoch
        self.targets = plan.targets(self.recipe)
        self.error: BaseException | None = None
        self._laws, self._source, self._ledger = plan.laws(self.recipe), source, ledger
        self._kept: dict[int, np.ndarray] = {}  # by thread: the last image that Python decoded
        self._rescue = ffcv_lane.RESCUE(self._decode)

    def batch(self, made: Made, labels: np.ndarray | torch.Tensor | None = None) -> ViewBatch:
        """What FFCV's loader gave for the field, in its memory: valid as long as FFCV has it.

        An error that ended the making of the batch, such as too many bad samples, is raised here.
        """
        pixels, ids, shapes, rows = made
        ids = ids[:, 0]
        if self.error is not None and (ids < 0).any():
            raise self.error
        flat = torch.from_numpy(pixels).view(self.dtype).flatten()
        views = layout.shaped(flat, self.targets, len(ids), self.channels_last)
        shown = None if labels is None else torch.from_numpy(np.asarray(labels)[ids])
        return ViewBatch(views, torch.from_numpy(ids), shown, rows.view(ROW), shapes, self.targets)

    # ---------------------------------------------------------------------------- what FFCV calls

    def declare_state_and_memory(
        self, previous_state: State
    ) -> tuple[State, tuple[AllocationQuery, ...]]:
        epoch, self.epoch = max(self.epoch, 0), self.epoch + 1
        elements, number = layout.elements(self.targets, 1), _number(self.dtype)
        return replace(previous_state, jit_mode=True, shape=(elements,), dtype=number), (
            AllocationQuery((elements,), number),
            AllocationQuery((1,), np.dtype("i8")),
            AllocationQuery((2,), np.dtype("i4")),
            AllocationQuery((len(self._laws) * ROW.itemsize,), np.dtype("u1")),
            # Empty, and as long as the epoch's number: memory is all that an epoch has of its own.
            AllocationQuery((0, epoch), np.dtype("u1")),
        )

    def generate_code(self) -> Callable[..., Made]:
        lane, lanes, each = self._lane(), Compiler.num_threads, Compiler.get_iterator()

        def make(indices, memory, metadata, storage):  # type: ignore[no-untyped-def]
            pixels, ids, shapes, rows, empty = memory
            counter = np.zeros(1, np.int64)
            epoch = empty.shape[2]
            for _ in each(lanes):
                lane(counter, indices, metadata, storage, epoch, pixels, ids, shapes, rows)
            return pixels, ids, shapes, rows

        make.is_parallel = True  # type: ignore[attr-defined]
        return make

    def _lane(self) -> Callable[..., None]:
        if not isinstance(self._ledger, Ledger):
            self._ledger = Ledger(_ledger_path(self._ledger, self.metadata), len(self.metadata))
        height, width = (self.metadata[side].astype(np.int64) for side in ("height", "width"))
        bytes_each = 3 * height * width
        kept = bytes_each <= MOST_KEPT
        largest = max(target.size for target in self.targets)
        tall, wide = height.max(where=kept, initial=1), width.max(where=kept, initial=1)
        return ffcv_lane.compiled(
            ffcv_lane.Work(
                seed=self.seed,
                laws=self._laws,
                slots=cpu.slots(self.targets, 1, self.dtype == torch.uint8),
                number=_number(self.dtype),
                half=self.dtype == torch.float16,
                channels_last=self.channels_last,
                largest=largest,
                room=int(bytes_each.max(where=kept, initial=3)),
                scratch=int(cpu.pool_bytes(int(tall), int(wide), largest)) + 64,
                read=self.memory_read,
                rescue=self._rescue,
            )
        )

    # --------------------------------------------------------------- what the compiled code calls

    def _decode(self, id: int, address: int, size: int, shape: int) -> int:
        """The rescue of a sample that compiled code cannot decode; see `ffcv_lane.RESCUE`."""
        try:
            if self.error is not None or id in self._ledger:
                return ffcv_lane.FAILED if self.error else ffcv_lane.BAD
            try:
                data = self._source.read(id) if self._source else ctypes.string_at(address, size)
                image = decode(data)
                if max(image.shape) > plan.MAX_SIDE:
                    raise BadImage(f"a side of {max(image.shape)} pixels is too long")
            except (BadImage, OSError) as error:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                where = self._source.where(id) if self._source else f"sample {id} of FFCV's file"
                self._ledger.record(id, where, reason)
                return ffcv_lane.BAD
            (ctypes.c_int32 * 2).from_address(shape)[:] = image.shape[:2]
            self._kept[threading.get_ident()] = image
            return image.ctypes.data
        except BaseException as error:  # nothing can be raised through compiled code
            self.error = error
            return ffcv_lane.FAILED


def _number(dtype: torch.dtype) -> np.dtype:
    """The type of number that stands for it in numpy, which has no bfloat16."""
    known = {torch.float32: "f4", torch.uint8: "u1", torch.float16: "u2", torch.bfloat16: "u2"}
    if dtype not in known:
        raise MillError(f"dtype must be one of {', '.join(map(str, known))}, not {dtype!r}")
    return np.dtype(known[dtype])


def _ledger_path(path: str | Path | None, metadata: np.ndarray) -> Path:
    if path is not None:
        return Path(path)
    name = f"ffcv-{zlib.crc32(metadata.tobytes()):08x}-rank{os.environ.get('RANK', 0)}.jsonl"
    return cache.root() / "ledgers" / name
