"""Mutated images: through the decoder against PIL, and through pipelines against each other."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence

import numpy as np
import simplejpeg
from helpers_beton import encode, overwrite_image, write_beton

from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.decode.jpeg_header import jpeg_frame, lies_about_size, plain_jpeg
from patchmill.loaders.sources.beton.source import Beton
from trust.check import Check, Outcome, Task
from trust.fuzz.image_mutations import mutated
from trust.odd.pil import Encoded, Epoch, by_pil

TOGETHER = 250  # images of a loader
LEAST_FOR_FFCV, MOST_IN_BETON = 1000, 20_000  # images: compiling its pipeline takes some time


def decoder(task: Task) -> Outcome:
    """`decode` gives PIL's pixels, or BadImage for what PIL does not read."""
    outcome = Outcome()
    for index in range(task.tries):
        data = mutated(task.random(index))
        try:
            found, said = decode(data), "pixels"
        except BadImage as problem:
            found, said = None, str(problem)
            if not said or "\n" in said:
                outcome.failed(f"image {index}: no sentence: {said!r}")
        except BaseException as error:
            outcome.failed(f"image {index}: {type(error).__name__}: {error}")
            continue
        finally:
            outcome.tried("pixels" if found is not None else "bad image")
        wanted = None if _lies(data) else by_pil(data)
        if (found is None) != (wanted is None):
            pil = "reads" if found is None else "fails"
            outcome.failed(f"image {index}: {said}, and PIL {pil}")
        elif found is not None and not np.array_equal(found, wanted):
            outcome.failed(f"image {index}: other pixels than PIL's")
    return outcome


def pipelines(task: Task) -> Outcome:
    """Every sample of an epoch is there, with the views that `threads` makes, or in the ledger."""
    outcome, names = Outcome(), ["dali"] if importlib.util.find_spec("nvidia.dali") else []
    for first in range(0, task.tries, TOGETHER):
        chosen = range(first, min(first + TOGETHER, task.tries))
        files = [mutated(task.random(index)) for index in chosen]
        wanted = Epoch(Encoded("mutated", files), "threads", task.folder / f"threads-{first}")
        _count(outcome, wanted, len(files))
        for name in names:
            found = Epoch(Encoded("mutated", files), name, task.folder / f"{name}-{first}")
            _count(outcome, found, len(files))
            _compare(outcome, first, files, found, wanted)
        task.note(f"{chosen.stop:,} images")
    if importlib.util.find_spec("ffcv") and task.tries >= LEAST_FOR_FFCV:
        _through_ffcv(outcome, task)
    return outcome


def _through_ffcv(outcome: Outcome, task: Task) -> None:
    """The same with FFCV's compiled code, which reads a .beton."""
    files = [mutated(task.random(index)) for index in range(min(task.tries, MOST_IN_BETON))]
    rooms = [encode(index) + bytes(len(data)) for index, data in enumerate(files)]
    path = write_beton(task.folder / "mutated.beton", rooms)
    for index, data in enumerate(files):
        overwrite_image(path, index, data)
    wanted = Epoch(path, "threads", task.folder / "threads.jsonl")
    found = Epoch(path, "ffcv", task.folder / "ffcv.jsonl")
    _count(outcome, found, len(files))
    source = Beton(path)
    _compare(outcome, 0, [source.read(index) for index in range(len(source))], found, wanted)


def _count(outcome: Outcome, epoch: Epoch, count: int) -> None:
    """Each sample is there once or in the ledger; substitutes are good ones."""
    outcome.tries += count
    outcome.ends["bad image"] += len(epoch.bad)
    outcome.ends["pixels"] += count - len(epoch.bad)
    good = set(range(count)) - epoch.bad.keys()
    outcome.lost += len(good - set(epoch.ids))
    outcome.repeated += max(len(epoch.ids) - count, 0)
    if set(epoch.ids) - good:
        outcome.failed(f"bad samples in batches: {sorted(set(epoch.ids) - good)[:5]}")


def _compare(
    outcome: Outcome, first: int, files: Sequence[bytes], one: Epoch, other: Epoch
) -> None:
    """Decisions and pixels are alike, but for damage that libjpeg warns of and DALI ignores."""
    excused = functools.cache(lambda id: _only_pil_minds(files[id]))
    for id in sorted(one.bad.keys() ^ other.bad.keys()):
        if excused(id):
            outcome.ends["only PIL minds"] += 1
        else:
            side = one if id in one.bad else other
            outcome.failed(f"image {first + id} is bad in one alone: {side.bad[id]['reason']}")
    views = {id: row for id, row in zip(other.ids, other.views, strict=True)}
    for id, row in zip(one.ids, one.views, strict=True):
        if id in views and not bool((views[id] == row).all()) and not excused(id):
            outcome.failed(f"image {first + id} has other pixels")


def _only_pil_minds(data: bytes) -> bool:
    """True for a JPEG that DALI gets, and about which libjpeg-turbo so much as warns."""
    if plain_jpeg(data) is None:
        return False
    try:
        simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except (ValueError, MemoryError):
        return True
    return False


def _lies(data: bytes) -> bool:
    frame = jpeg_frame(data)
    return frame is not None and lies_about_size(data, frame)


CHECKS = (
    Check(
        "fuzz-images", "mutated images: decoded, against PIL", decoder,
        short=300, standard=50_000, long=200_000, seconds=60,
    ),
    Check(
        "fuzz-image-pipelines", "mutated images: through threads, DALI and FFCV", pipelines,
        short=60, standard=4000, long=50_000, seconds=120,
    ),
)  # fmt: skip
