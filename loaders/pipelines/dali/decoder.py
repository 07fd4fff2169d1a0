"""Decode batches of JPEGs with NVIDIA DALI: on a GPU, or on CPU threads with PIL's exact pixels.

DALI 2.4 was found to behave as follows, and this file relies on it:

* *Failures stay with their batch.* Each scheduled batch has its own result, so the batches after a
  failed one come out right, in spite of what its message says about the pipeline. But a JPEG whose
  *header* cannot be read crashes the whole process: its decoder leaves its threads running on freed
  memory. So headers are checked here, by the same parser, before DALI sees them.
* *A TensorList owns its memory.* Every batch is decoded into one new allocation from DALI's pool,
  which returns to the pool when the last Python object that refers to it is gone.
* *The GIL is released.* `outputs` waits without it. On the CPU `threads` threads decode, and two
  more only pass data on; on a GPU `threads` threads do what the GPU cannot: Huffman decoding of
  JPEGs that the hardware decoder does not get.
* *The queue depth is ours.* With a prefetch depth of 1, `schedule_run` starts exactly one batch,
  and may be called again before its outputs are taken.

GPU memory: (`ahead` + batches the caller keeps) x the largest batch's sum of height x width x 3
bytes, + grey images once more while they are decoded, + `threads` x 16 MiB, + the hardware
decoder's memory for its share of a batch. Freed memory stays in DALI's pool for the next batch.

Pixels: on the CPU bit for bit those of `loaders.decode`. On a GPU they differ, because its decoder
does not interpolate chroma. nvJPEG could (`jpeg_fancy_upsampling`), but that is undocumented for
its hardware engine, and an image must not look different depending on the engine that decoded it.
The engine depends on the image's place in the batch: if that must not matter at all, set `hardware`
to 0 or 1.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from patchmill.kernels.views.gpu.tables import Images
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import MOST_PIXELS

_INPUT = "encoded"
_CHUNK = 32  # images that `find_undecodable` decodes at a time, so that it needs little memory
_DEVICE_PADDING, _HOST_PADDING = 16 << 20, 8 << 20  # bytes per thread; DALI's defaults


class Refused(Exception):
    """DALI could not decode a batch; `find_undecodable` finds the images to blame.

    If it finds none, there is only DALI's message.
    """


@dataclass(frozen=True)
class DecodedBatch:
    """A batch of uint8 RGB images. Keep it as long as their memory is used.

    On a GPU that is until an event recorded after the last kernel that reads them has passed: the
    memory returns to DALI in the order of DALI's own stream, not of the caller's.
    """

    images: Images
    tensors: Any  # DALI's TensorListCPU or TensorListGPU
    encoded: Sequence[np.ndarray]  # kept: a GPU may still be reading them

    def array(self, index: int) -> np.ndarray:
        """Image `index` as [height, width, 3] without a copy; on the CPU only."""
        return np.asarray(self.tensors[index])


@dataclass(frozen=True)
class _SubmittedBatch:
    encoded: Sequence[np.ndarray]
    scheduled: bool  # False: refused before DALI saw it


class BatchDecoder:
    """Decodes up to `ahead` batches in the background; use it from one thread at a time.

    `hardware` is the share of a batch, 0 to 1, for a GPU's JPEG engine; CUDA kernels decode the
    rest. A process may have any number of decoders; in a forked process they are closed.
    """

    def __init__(
        self,
        max_batch: int,
        *,
        device: torch.device,
        threads: int,
        ahead: int,
        hardware: float | None = None,
        checked: bool = False,
    ) -> None:
        """`checked`: only images with a decodable header are submitted."""
        self._checked = checked
        self._max_batch, self._ahead = max_batch, ahead
        self._pipeline: Any = _build_pipeline(max_batch, device, threads, hardware)
        self._in_flight: deque[_SubmittedBatch] = deque()
        # DALI may read the arrays as long as its pipeline lives, which a traceback may extend.
        weakref.finalize(self._pipeline, self._in_flight.clear).atexit = False
        _decoders.add(self)

    def submit(self, encoded: Sequence[np.ndarray]) -> None:
        """Schedule 1-D uint8 arrays for decoding; they must not change until the batch is taken."""
        if not 0 < len(encoded) <= self._max_batch:
            raise ValueError(f"a batch has 1 to {self._max_batch} images, not {len(encoded)}")
        if len(self._in_flight) >= self._ahead:
            raise ValueError(f"{self._ahead} batches are in flight: take one first")
        if self._pipeline is None:
            raise ValueError("this decoder is closed")
        scheduled = self._checked or all(map(has_decodable_header, encoded))
        batch = _SubmittedBatch(encoded, scheduled)
        if batch.scheduled:
            try:
                self._pipeline.feed_input(_INPUT, _tensor_list(encoded))
                self._pipeline.schedule_run()
            except BaseException:
                self.close()  # a batch that was fed but not run would come out as the next one
                raise
        self._in_flight.append(batch)

    def take(self, stream: torch.cuda.Stream | None = None) -> DecodedBatch:
        """Wait for the oldest submitted batch; raise Refused if it cannot be decoded.

        With a `stream` of the device, the host does not wait for the GPU: kernels launched on that
        stream find the images decoded. Without one they are decoded on return. After Refused,
        batches that were submitted later can still be taken.
        """
        if not self._in_flight:
            raise ValueError("no batch is in flight")
        batch, tensors, reason = self._in_flight[0], None, "the header of an image cannot be read"
        if batch.scheduled:
            try:
                (tensors,) = self._pipeline.outputs(cuda_stream=stream)
            except RuntimeError as error:
                reason = _reason(error)
            except BaseException:
                self.close()  # the batch may or may not still be in DALI's queue
                raise
        self._in_flight.popleft()
        if tensors is None:
            raise Refused(reason)
        return DecodedBatch(_image_table(tensors), tensors, batch.encoded)

    def close(self) -> None:
        """Wait for submitted batches, drop them, end DALI's threads; taken batches stay valid."""
        self._pipeline = None
        self._in_flight = deque()

    def abandon(self) -> None:
        """Close without waiting, in a forked process, which lacks DALI's threads."""
        _abandoned.append(self._pipeline)
        self.close()


_decoders: weakref.WeakSet[BatchDecoder] = weakref.WeakSet()
_abandoned: list[Any] = []  # kept because their destructors would wait for ever


def _abandon_all() -> None:
    for decoder in list(_decoders):
        decoder.abandon()


os.register_at_fork(after_in_child=_abandon_all)


def has_decodable_header(encoded: np.ndarray, max_pixels: int = MOST_PIXELS) -> bool:
    """Check that the bytes begin like a JPEG of one or three components that DALI can decode."""
    from nvidia import nvimgcodec

    try:
        stream = nvimgcodec.CodeStream(encoded)
        return (
            stream.codec_name == "jpeg"
            and stream.num_channels in (1, 3)
            and stream.precision == 8
            and stream.height * stream.width <= max_pixels
        )
    except RuntimeError:
        return False


def find_undecodable(
    encoded: Sequence[np.ndarray], device: torch.device, threads: int
) -> list[int]:
    """Indices of images that DALI's decoder rejects: in small chunks without DALI, thus slow."""
    from nvidia import nvimgcodec

    kinds = [nvimgcodec.CPU_ONLY]
    if device.type == "cuda":
        kinds = [nvimgcodec.HW_GPU_ONLY, nvimgcodec.GPU_ONLY, nvimgcodec.HYBRID_CPU_GPU, *kinds]
    decoder = nvimgcodec.Decoder(
        device_id=_index(device)
        if device.type == "cuda"
        else nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY,
        max_num_cpu_threads=threads,
        backends=[nvimgcodec.Backend(kind) for kind in kinds],
    )
    params = nvimgcodec.DecodeParams(apply_exif_orientation=False)
    good = [i for i, one in enumerate(encoded) if has_decodable_header(one)]
    bad = set(range(len(encoded))).difference(good)
    for first in range(0, len(good), _CHUNK):
        chunk = good[first : first + _CHUNK]
        images = decoder.decode([nvimgcodec.CodeStream(encoded[i]) for i in chunk], params=params)
        bad.update(i for i, image in zip(chunk, images, strict=True) if image is None)
    return sorted(bad)


def _build_pipeline(
    max_batch: int, device: torch.device, threads: int, hardware: float | None
) -> Any:
    try:
        from nvidia import nvimgcodec  # noqa: F401
        from nvidia.dali import fn, types
        from nvidia.dali.pipeline import Pipeline
    except ImportError:
        raise MillError("DALI is not installed: pip install 'patchmill[dali]'") from None
    cuda = device.type == "cuda"
    settings: dict[str, Any] = {"device": "cpu"}
    if cuda:
        settings = {
            "device": "mixed",
            "affine": False,  # else all processes of a node pin their threads to the same cores
            "device_memory_padding": _DEVICE_PADDING,
            "host_memory_padding": _HOST_PADDING,
        }
        if hardware is not None:
            settings["hw_decoder_load"] = hardware
    pipeline = Pipeline(
        max_batch, threads, device_id=_index(device) if cuda else None, prefetch_queue_depth=1
    )
    with pipeline:
        encoded = fn.external_source(name=_INPUT, no_copy=True, dtype=types.UINT8, ndim=1)
        images = fn.decoders.image(
            encoded,
            output_type=types.RGB,
            adjust_orientation=False,
            use_fast_idct=False,
            **settings,
        )
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _tensor_list(encoded: Sequence[np.ndarray]) -> Any:
    """Wrap the arrays as DALI would, but faster."""
    from nvidia.dali.tensors import TensorCPU, TensorListCPU

    return TensorListCPU([TensorCPU(one) for one in encoded], contiguous=False)


def _image_table(tensors: Any) -> Images:
    numbers = itertools.chain.from_iterable(tensors.shape())
    shapes = np.fromiter(numbers, np.int64).reshape(-1, 3)
    try:
        ends = tensors.data_ptr() + shapes.prod(1).cumsum()  # one image right behind the other
        pointers = np.concatenate([[tensors.data_ptr()], ends[:-1]])
    except RuntimeError:  # they are not contiguous
        pointers = np.array([tensors[i].data_ptr() for i in range(len(shapes))], np.int64)
    return Images(pointers, shapes[:, :2], 3 * shapes[:, 1])


def _reason(error: RuntimeError) -> str:
    """The line of DALI's message that gives the reason, without the source of its graph."""
    text = str(error).partition("encountered:")[2] or str(error)
    return " ".join(text.partition("Current pipeline object")[0].split())
