"""Who takes part, beside the loader and its peers: what says how fast it could be at best."""

from __future__ import annotations

from functools import partial

import torch

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import batchwise, contenders
from patchmill.benchmarks.lib.contenders import Batches, Contender, Threads
from patchmill.benchmarks.lib.report import BARE
from patchmill.benchmarks.peers import ragged
from patchmill.loaders.decode.decoder import Decoder
from patchmill.loaders.recipe import Recipe

DECODE_AND_VIEWS, VIEWS = "decode + views", "views alone"
BY_DALI, BY_CPU = "decode by dali", "decode by CPU"
GPU_DECODERS = (BY_DALI, *(f"decode by {name}" for name in ragged.DECODERS))
"""Of which the best on this machine is the bare decode."""


def on_cpu(images: list[bytes], recipe: Recipe, workers: int) -> list[Contender]:
    make_views = partial(contenders.Views, recipe)
    return [
        Threads(BARE, "decode", Decoder, images, workers),
        Threads(DECODE_AND_VIEWS, "decode + views", make_views, images, workers),
    ]


def on_gpu(
    images: list[bytes],
    recipe: Recipe,
    workers: int,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> list[Contender]:
    """Those that cannot be had on this machine fail to open."""

    def both() -> peers.Batches:
        decoder = batchwise.dali(images, workers, batch_size, device)
        return batchwise.decode_and_views(decoder, images, recipe, batch_size, device, dtype)

    def views() -> peers.Batches:
        return batchwise.views_alone(images, recipe, batch_size, device, dtype)

    ahead = batchwise.AHEAD
    return [
        by_dali(images, workers, batch_size, device),
        *(_by_list(name, images, batch_size, device) for name in ragged.DECODERS),
        Threads(BY_CPU, "decode", Decoder, images, workers),
        Batches(DECODE_AND_VIEWS, both, batch_size, workers, ahead=ahead, stage="decode + views"),
        Batches(VIEWS, views, batch_size, 1, ahead=0, stage="views"),
    ]


def by_dali(images: list[bytes], workers: int, batch_size: int, device: torch.device) -> Contender:
    def start() -> peers.Batches:
        decoder = batchwise.dali(images, workers, batch_size, device)
        return batchwise.by_dali(decoder, images, batch_size)

    return Batches(BY_DALI, start, batch_size, workers, ahead=batchwise.AHEAD, stage="decode")


def _by_list(name: str, images: list[bytes], batch_size: int, device: torch.device) -> Contender:
    def start() -> peers.Batches:
        decode = ragged.DECODERS[name](str(device))
        return batchwise.by_list(decode, images, batch_size)

    return Batches(f"decode by {name}", start, batch_size, 1, ahead=0, stage="decode")
