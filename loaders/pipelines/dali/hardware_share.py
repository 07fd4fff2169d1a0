"""Share of each batch that a GPU's JPEG engine should decode: measured once per machine and cached.

The best share depends on the number of engines, on the CPU threads that do the CUDA decoder's
Huffman decoding meanwhile, and on the images, so it cannot be known in advance. On a GPU without an
engine all shares are equally fast. If the engine cannot be reached, its share is 0.
"""

from __future__ import annotations

import json
import logging
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from patchmill.loaders.decode import jpeg_engines
from patchmill.loaders.files import cache, writing
from patchmill.loaders.pipelines.dali.decoder import BatchDecoder, find_undecodable

log = logging.getLogger("patchmill")

Measure = Callable[[float], float]  # images/s of a share

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_BATCH = 128
_SECONDS = 0.3  # per share: about two seconds in total, including building the decoders
_MIN_BATCHES = 3
_AHEAD = 2


def hardware_share(
    device: torch.device,
    threads: int,
    samples: Sequence[np.ndarray],
    measure: Measure | None = None,
) -> float:
    """The share, 0 to 1, of encoded images like `samples` that `device` should decode in hardware.

    One process of a machine measures, the others wait for its result. Undecodable samples are
    skipped; if no others remain, the share is 0 and is not cached.
    """
    if reachable(None) == 0:
        return 0.0
    from nvidia import dali

    gpu = torch.cuda.get_device_name(device)
    key = {"gpu": gpu, "dali": dali.__version__, "threads": threads}
    name = re.sub(r"[^a-z0-9.]+", "-", f"{gpu} dali {dali.__version__} {threads} threads".lower())
    path = cache.folder("dali") / f"{name}.json"
    with cache.lock(path.with_suffix(".lock")):
        share = _load(path, key)
        if share is None:
            bad = find_undecodable(samples, device, threads)
            good = [one for i, one in enumerate(samples) if i not in bad]
            if not good:
                return 0.0
            share = best_share(measure or (lambda share: _rate(share, device, threads, good)))
            _save(path, {**key, "share": share})
    return share


def reachable(share: float | None) -> float | None:
    """This share, or 0 with a log message if the JPEG engines cannot be reached."""
    if share == 0 or not (why := jpeg_engines.unreachable()):
        return share
    log.warning(
        "%s is %s: %s. To use them, %s",
        jpeg_engines.LIBRARY,
        why,
        jpeg_engines.COST,
        jpeg_engines.REMEDY,
    )
    return 0.0


def best_share(measure: Measure) -> float:
    """The share with the most images/s; the smallest of equals."""
    rates = {share: measure(share) for share in SHARES}
    best = max(rates, key=lambda share: rates[share])
    log.info(
        "measured the best share of JPEGs for the GPU's JPEG engine: %d %% (images/s: %s)",
        round(100 * best),
        ", ".join(f"{rate:,.0f} with {100 * share:.0f} %" for share, rate in rates.items()),
    )
    return best


def _rate(share: float, device: torch.device, threads: int, samples: Sequence[np.ndarray]) -> float:
    """Images/s by the median batch, with the next one in flight, as in a pipeline."""
    batch = [samples[i % len(samples)] for i in range(_BATCH)]
    decoder = BatchDecoder(_BATCH, device=device, threads=threads, ahead=_AHEAD, hardware=share)
    try:
        for _ in range(_AHEAD):
            decoder.submit(batch)
        decoder.take()  # untimed: the first batch allocates
        seconds: list[float] = []
        began = last = time.perf_counter()
        while last - began < _SECONDS or len(seconds) < _MIN_BATCHES:
            decoder.submit(batch)
            decoder.take()
            now = time.perf_counter()
            seconds.append(now - last)
            last = now
    finally:
        decoder.close()
    return _BATCH / statistics.median(seconds)


def _load(path: Path, key: Mapping[str, object]) -> float | None:
    """The cached share for exactly this key; None if there is none, or the file is damaged."""
    try:
        entry = json.loads(path.read_text())
        share = entry.pop("share")
        valid = entry == key and isinstance(share, float) and 0 <= share <= 1
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    return share if valid else None


def _save(path: Path, entry: Mapping[str, object]) -> None:
    try:
        writing.write_atomic(path, json.dumps(entry) + "\n", writing.unique_name(path))
    except OSError as error:
        raise cache.unusable(path.parent, error) from None
