"""Batches of encoded JPEGs to images, by NVIDIA DALI: on a GPU, or on CPU threads as PIL does it.

What DALI 2.4 was found to do, and this file builds on:

* *Failures stay with their batch.* Each scheduled batch has a result of its own, so the ones
  behind a failed batch come out right, whatever its message says of the pipeline. But a JPEG whose
  *header* cannot be read tears down the whole process: its decoder leaves its threads at work on
  memory that is gone. So headers are read here, by the same parser, before DALI sees them.
* *Memory is owned by its list.* Every batch is decoded into one new allocation from DALI's pool;
  it returns there when the last Python object that refers to it is gone.
* *The interpreter is free meanwhile.* `outputs` waits without the interpreter's lock. On the CPU
  `threads` threads decode, and two more only hand over; on a GPU `threads` do what the GPU cannot:
  the Huffman codes of JPEGs that the hardware decoder does not get.
* *Depth is ours.* With a queue depth of 1, `schedule_run` starts exactly one batch, and may be
  called again before its outputs are taken.

GPU memory: (`ahead` + batches the caller keeps) x the largest batch's sum of height x width x 3
bytes, + grey images once more while they are decoded, + `threads` x 16 MiB, + what the hardware
decoder needs for its share of a batch. Freed memory stays in DALI's pool for the next batch.

Pixels: on the CPU bit for bit those of `loaders.decode`, on a GPU not, because it interpolates no
chroma. nvJPEG could (`jpeg_fancy_upsampling`), but it is not documented for its hardware engine,
and an image must not look different depending on which engine it was given to. Which one that is
depends on its place in the batch: where that must not matter at all, `hardware` is 0 or 1.
"""

from __future__ import annotations

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
from patchmill.loaders.decode.decoder import MAX_PIXELS

_INPUT = "encoded"
_CHUNK = 32  # images that `refused` decodes at a time, so that it needs little memory
_DEVICE_PADDING, _HOST_PADDING = 16 << 20, 8 << 20  # bytes a thread; DALI's defaults


class Refused(Exception):
    """A batch that could not be decoded: `refused` tells which of its images are to blame.

    If it finds none, the message is all that is known: it is DALI's.
    """


@dataclass(frozen=True)
class Decoded:
    """A batch of uint8 RGB images; to be kept as long as their memory is used.

    On a GPU that is until an event that was recorded after the last kernel that reads them is
    over: the memory goes back to DALI in the order of its own stream, not of the caller's.
    """

    images: Images
    tensors: Any  # DALI's TensorListCPU or TensorListGPU
    encoded: Sequence[np.ndarray]  # a GPU may still be reading them

    def array(self, index: int) -> np.ndarray:
        """On the CPU: image `index`, [height, width, 3], without a copy."""
        return np.asarray(self.tensors[index])


@dataclass(frozen=True)
class _Batch:
    encoded: Sequence[np.ndarray]
    scheduled: bool  # or else refused before DALI saw it


class BatchDecoder:
    """Decodes up to `ahead` batches while the caller does something else; for one thread at a time.

    `most` is the largest batch. `hardware` is the share of a batch, 0 to 1, that a GPU's JPEG
    engine gets; CUDA kernels decode the rest. Any number of decoders may be at work in a process;
    in a forked one they are closed.
    """

    def __init__(
        self,
        most: int,
        *,
        device: torch.device,
        threads: int,
        ahead: int,
        hardware: float | None = None,
    ) -> None:
        self._most, self._ahead = most, ahead
        self._pipeline: Any = _pipeline(most, device, threads, hardware)
        self._underway: deque[_Batch] = deque()
        # DALI reads the arrays as long as it lives, which a traceback may prolong.
        weakref.finalize(self._pipeline, self._underway.clear).atexit = False
        _decoders.add(self)

    def submit(self, encoded: Sequence[np.ndarray]) -> None:
        """Schedule the decoding of 1-D uint8 arrays; they must not change until they are taken."""
        if not 0 < len(encoded) <= self._most:
            raise ValueError(f"a batch has 1 to {self._most} images, not {len(encoded)}")
        if len(self._underway) >= self._ahead:
            raise ValueError(f"{self._ahead} batches are under way: take one first")
        if self._pipeline is None:
            raise ValueError("this decoder is closed")
        batch = _Batch(encoded, all(map(has_header, encoded)))
        if batch.scheduled:
            try:
                self._pipeline.feed_input(_INPUT, _tensors(encoded))
                self._pipeline.schedule_run()
            except BaseException:
                self.close()  # a batch that is fed but not run would be taken for the next one
                raise
        self._underway.append(batch)

    def take(self, stream: torch.cuda.Stream | None = None) -> Decoded:
        """The oldest submitted batch, when it is decoded; Refused if it cannot be.

        With a `stream` of the device, the host does not wait for the GPU: kernels that are
        launched on that stream find the images. Without, they are there on return. After Refused,
        batches that were submitted later are still to be taken.
        """
        if not self._underway:
            raise ValueError("no batch is under way")
        batch, tensors, reason = self._underway[0], None, "the header of an image cannot be read"
        if batch.scheduled:
            try:
                (tensors,) = self._pipeline.outputs(cuda_stream=stream)
            except RuntimeError as error:
                reason = _reason(error)
            except BaseException:
                self.close()  # nobody knows whether the batch is still in DALI's queue
                raise
        self._underway.popleft()
        if tensors is None:
            raise Refused(reason)
        return Decoded(_images(tensors), tensors, batch.encoded)

    def close(self) -> None:
        """Wait for what is under way, drop it, and end DALI's threads; what was taken stays."""
        self._pipeline = None
        self._underway = deque()

    def abandon(self) -> None:
        """Close without waiting, in a forked process: DALI's threads did not come along."""
        _abandoned.append(self._pipeline)
        self.close()


_decoders: weakref.WeakSet[BatchDecoder] = weakref.WeakSet()
_abandoned: list[Any] = []  # to end these would wait for ever


def _abandon_all() -> None:
    for decoder in list(_decoders):
        decoder.abandon()


os.register_at_fork(after_in_child=_abandon_all)


def has_header(encoded: np.ndarray) -> bool:
    """Whether the bytes begin as a JPEG, grey or of three components, that can be decoded."""
    from nvidia import nvimgcodec

    try:
        stream = nvimgcodec.CodeStream(encoded)
        return (
            stream.codec_name == "jpeg"
            and stream.num_channels in (1, 3)
            and stream.precision == 8
            and stream.height * stream.width <= MAX_PIXELS
        )
    except RuntimeError:
        return False


def refused(encoded: Sequence[np.ndarray], device: torch.device, threads: int) -> list[int]:
    """Which of the images cannot be decoded: by DALI's decoder without DALI, so it is slow."""
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
    good = [i for i, one in enumerate(encoded) if has_header(one)]
    bad = set(range(len(encoded))).difference(good)
    for first in range(0, len(good), _CHUNK):
        chunk = good[first : first + _CHUNK]
        images = decoder.decode([nvimgcodec.CodeStream(encoded[i]) for i in chunk], params=params)
        bad.update(i for i, image in zip(chunk, images, strict=True) if image is None)
    return sorted(bad)


def _pipeline(most: int, device: torch.device, threads: int, hardware: float | None) -> Any:
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
            "affine": False,  # or every process of a node would tie its threads to the same cores
            "device_memory_padding": _DEVICE_PADDING,
            "host_memory_padding": _HOST_PADDING,
        }
        if hardware is not None:
            settings["hw_decoder_load"] = hardware
    pipeline = Pipeline(
        most, threads, device_id=_index(device) if cuda else None, prefetch_queue_depth=1
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


def _tensors(encoded: Sequence[np.ndarray]) -> list[Any]:
    """As DALI would wrap the arrays, but faster."""
    from nvidia.dali.tensors import TensorCPU

    return [TensorCPU(one) for one in encoded]


def _images(tensors: Any) -> Images:
    shapes = np.array(tensors.shape(), np.int64)
    pointers = np.array([tensors[i].data_ptr() for i in range(len(shapes))], np.int64)
    return Images(pointers, shapes[:, :2], 3 * shapes[:, 1])


def _reason(error: RuntimeError) -> str:
    """The line of DALI's message that says what happened, without where its graph was written."""
    text = str(error).partition("encountered:")[2] or str(error)
    return " ".join(text.partition("Current pipeline object")[0].split())
