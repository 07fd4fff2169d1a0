"""`Pasting`: the part of copy-paste that Python does for FFCV's compiled code."""

from __future__ import annotations

import ctypes
import threading
from functools import cached_property

import numpy as np

from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.copypaste import masks as masks_of
from patchmill.loaders.copypaste.backgrounds import NO_MASK
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.ffcv import paste
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.pipelines.samples import PasteInputs, SampleReader
from patchmill.loaders.stats import Counters


class Pasting:
    """The masks and backgrounds of a loader; keeps alive all memory that compiled code points to.

    The functions are called in FFCV's threads. Exceptions cannot pass through compiled code, so
    errors are kept in `error`.
    """

    error: BaseException | None = None

    def __init__(self, config: PipelineConfig) -> None:
        assert config.masks is not None
        self._config, self._masks = config, config.masks
        self._in_python, self._share_in_python = paste.PASTE(self._read), paste.SHARE(self._share)
        self._inputs: dict[int, tuple[SampleReader, PasteInputs | None]] = {}  # by thread

    @cached_property
    def constants(self) -> paste.PasteConstants:
        places = self._masks.places()
        return paste.PasteConstants(
            seed=self._config.seed,
            places=places,
            shares=None if places is None else self._masks.shares(),
            own_backgrounds=self._config.backgrounds is None,
            in_python=self._in_python,
            share_in_python=self._share_in_python,
        )

    def count(self, outcomes: np.ndarray) -> None:
        """Add masks looked up by compiled code, without Python, to the mask statistics."""
        self._masks.count(
            {
                masks_of.USED: int(outcomes[paste.INPUTS]),
                masks_of.MISSING: int(outcomes[paste.ABSENT]),
                masks_of.DEGENERATE: int(outcomes[paste.DEGENERATE]),
            }
        )

    def _read(self, id: int, epoch: int, rows: int, inputs: int) -> int:
        """Read a sample's mask and background as other pipelines do; see `paste.PASTE`."""
        try:
            if self.error is not None:
                return paste.FAILED
            thread, views = threading.get_ident(), self._config.views
            reader = self._inputs[thread][0] if thread in self._inputs else self._reader()
            job = Job(epoch, np.array([id]), views, Countdown(1))
            memory = (ctypes.c_uint8 * (views * ROW.itemsize)).from_address(rows)
            job.rows = np.ctypeslib.as_array(memory).view(ROW).reshape(1, views)
            (found,) = reader.paste_inputs(job, [0], reader.decode_background, "decode")
            self._inputs[thread] = reader, found
            mask, (height, width, pixels) = found
            if not mask.size:
                return paste.UNMASKED
            (ctypes.c_int64 * paste.DECODE_NS).from_address(inputs)[:] = [
                mask.ctypes.data, *mask.shape, pixels.ctypes.data, height, width,
            ]  # fmt: skip
            return paste.READ_IN_PYTHON
        except BaseException as error:
            self.error = error
            return paste.FAILED

    def _share(self, id: int) -> float:
        """Foreground share of a mask; see `paste.SHARE`."""
        try:
            share = self._masks.foreground(id)
            return NO_MASK if share is None else share
        except BaseException as error:
            self.error = error
            return NO_MASK

    def _reader(self) -> SampleReader:
        return SampleReader(self._config, Counters(("read", "decode", "mask")))
