"""Contenders that bound the loader's rate: decoding alone, decoding and views, views alone."""

from __future__ import annotations

from functools import partial

import torch

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib.report import BARE_DECODE
from patchmill.benchmarks.lib.throughput import batch_stages
from patchmill.benchmarks.lib.throughput.batches import BatchContender, Making
from patchmill.benchmarks.lib.throughput.contenders import (
    DECODER,
    Contender,
    DecodeAndRender,
    ThreadedContender,
)
from patchmill.benchmarks.peers import ragged
from patchmill.loaders.decode.decoder import Decoder
from patchmill.loaders.recipe import Recipe

DECODE_AND_VIEWS, VIEWS_ALONE = "decode + views", "views alone"
DALI_DECODE, CPU_DECODE = "decode by dali", "decode by CPU"
GPU_DECODERS = (DALI_DECODE, *(f"decode by {name}" for name in ragged.DECODERS))
"""Decoders; the fastest on this machine counts as the bare decode."""


def on_cpu(images: list[bytes], recipe: Recipe, workers: int) -> list[Contender]:
    make_views = partial(DecodeAndRender, recipe)
    return [
        ThreadedContender(BARE_DECODE, "decode", Decoder, images, workers),
        ThreadedContender(
            DECODE_AND_VIEWS,
            "decode + views",
            make_views,
            images,
            workers,
            Making(DECODER, antialiased=True),
        ),
    ]


def on_gpu(
    images: list[bytes],
    recipe: Recipe,
    workers: int,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> list[Contender]:
    """All bounds; those whose library is not installed fail when they open."""

    def decode_and_render() -> peers.Batches:
        decoder = batch_stages.dali_decoder(images, workers, batch_size, device)
        return batch_stages.decode_and_render(decoder, images, recipe, batch_size, device, dtype)

    def render_alone() -> peers.Batches:
        return batch_stages.render_alone(images, recipe, batch_size, device, dtype)

    return [
        dali_decode(images, workers, batch_size, device),
        *(_list_decode(name, images, batch_size, device) for name in ragged.DECODERS),
        ThreadedContender(CPU_DECODE, "decode", Decoder, images, workers),
        BatchContender(
            DECODE_AND_VIEWS,
            decode_and_render,
            batch_size,
            workers,
            ahead=batch_stages.DALI_PREFETCH,
            stage="decode + views",
            making=Making("DALI", antialiased=True),
        ),
        BatchContender(
            VIEWS_ALONE,
            render_alone,
            batch_size,
            1,
            ahead=0,
            stage="views",
            making=Making(antialiased=True),
        ),
    ]


def dali_decode(
    images: list[bytes], workers: int, batch_size: int, device: torch.device
) -> Contender:
    def start() -> peers.Batches:
        decoder = batch_stages.dali_decoder(images, workers, batch_size, device)
        return batch_stages.decode_with_dali(decoder, images, batch_size)

    return BatchContender(
        DALI_DECODE,
        start,
        batch_size,
        workers,
        ahead=batch_stages.DALI_PREFETCH,
        stage="decode",
        making=Making("DALI"),
    )


def _list_decode(
    name: str, images: list[bytes], batch_size: int, device: torch.device
) -> Contender:
    def start() -> peers.Batches:
        decode = ragged.DECODERS[name](str(device))
        return batch_stages.decode_lists(decode, images, batch_size)

    return BatchContender(
        f"decode by {name}", start, batch_size, 1, ahead=0, stage="decode", making=Making(name)
    )
