"""How much of each batch a GPU's JPEG engine should decode: measured once a machine, and kept.

The best share depends on the number of engines, on the CPU threads that read Huffman codes for the
CUDA decoder beside them, and on the images, so nobody can know it. On a GPU without an engine all
shares are the same, and any of them is the best.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from patchmill.loaders.common import cache
from patchmill.loaders.pipelines.dali.decoder import BatchDecoder, refused

log = logging.getLogger("patchmill")

Measure = Callable[[float], float]  # share -> images/s

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_BATCH = 128
_SECONDS = 0.3  # for each share, so that all of it takes about two seconds with building decoders
_LEAST_BATCHES = 3
_AHEAD = 2


def hardware_share(
    device: torch.device,
    threads: int,
    samples: Sequence[np.ndarray],
    measure: Measure | None = None,
) -> float:
    """The share, 0 to 1, of encoded images like `samples` that `device` should decode in hardware.

    Of a machine's processes one measures and the others wait for its result. Samples that cannot be
    decoded are left out; without any other the answer is 0, and is not kept.
    """
    from nvidia import dali

    gpu = torch.cuda.get_device_name(device)
    key = {"gpu": gpu, "dali": dali.__version__, "threads": threads}
    name = re.sub(r"[^a-z0-9.]+", "-", f"{gpu} dali {dali.__version__} {threads} threads".lower())
    path = cache.folder("dali") / f"{name}.json"
    with cache.lock(path.with_suffix(".lock")):
        share = _known(path, key)
        if share is None:
            bad = refused(samples, device, threads)
            good = [one for i, one in enumerate(samples) if i not in bad]
            if not good:
                return 0.0
            share = best_share(measure or (lambda share: _rate(share, device, threads, good)))
            _keep(path, {**key, "share": share})
    return share


def best_share(measure: Measure) -> float:
    """The share with the most images/s; of equals the smallest."""
    rates = {share: measure(share) for share in SHARES}
    best = max(rates, key=lambda share: rates[share])
    log.info(
        "measured which share of JPEGs the GPU's own decoder should get: %d %% (images/s: %s)",
        round(100 * best),
        ", ".join(f"{rate:,.0f} with {100 * share:.0f} %" for share, rate in rates.items()),
    )
    return best


def _rate(share: float, device: torch.device, threads: int, samples: Sequence[np.ndarray]) -> float:
    """Images/s in the median batch, with the next one under way, as in a pipeline."""
    batch = [samples[i % len(samples)] for i in range(_BATCH)]
    decoder = BatchDecoder(_BATCH, device=device, threads=threads, ahead=_AHEAD, hardware=share)
    try:
        for _ in range(_AHEAD):
            decoder.submit(batch)
        decoder.take()  # the first allocates
        seconds: list[float] = []
        began = last = time.perf_counter()
        while last - began < _SECONDS or len(seconds) < _LEAST_BATCHES:
            decoder.submit(batch)
            decoder.take()
            now = time.perf_counter()
            seconds.append(now - last)
            last = now
    finally:
        decoder.close()
    return _BATCH / statistics.median(seconds)


def _known(path: Path, key: Mapping[str, object]) -> float | None:
    """The share that was kept for just this key; None if there is none that can be believed."""
    try:
        kept = json.loads(path.read_text())
        share = kept.pop("share")
        sound = kept == key and isinstance(share, float) and 0 <= share <= 1
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    return share if sound else None


def _keep(path: Path, entry: Mapping[str, object]) -> None:
    half = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        half.write_text(json.dumps(entry) + "\n")
        half.replace(path)
    except OSError as error:
        raise cache.unusable(path.parent, error) from None
