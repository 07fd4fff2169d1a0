"""Mutated images: decoder compared with PIL, and pipelines compared with each other."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np
from helpers_beton import encode, overwrite_image, write_beton

from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.decode.jpeg_header import jpeg_frame, lies_about_size
from patchmill.loaders.sources.beton.source import Beton
from trust.check import Check, Outcome, Task
from trust.fuzz.image_mutations import mutated
from trust.odd.pil import Encoded, Epoch, by_pil, only_pil_minds

TOGETHER = 250  # images per loader
LEAST_FOR_FFCV, MOST_IN_BETON = 1000, 20_000  # images: compiling its pipeline takes some time


def decoder(task: Task) -> Outcome:
    """`decode` returns PIL's pixels, or raises BadImage for images that PIL cannot read."""
    outcome = Outcome()
    for index in range(task.tries):
        end, problem = judged(mutated(task.random(index)))
        outcome.tried(end)
        if problem:
            outcome.failed(f"image {index}: {problem}")
    return outcome


def judged(data: bytes) -> tuple[str, str]:
    """Outcome of decoding an image, and the problem with it; empty if none."""
    try:
        found, said = decode(data), "pixels"
    except BadImage as problem:
        found, said = None, str(problem)
        if not said or "\n" in said:
            return "bad image", f"no sentence: {said!r}"
    except BaseException as error:
        return "bad image", f"{type(error).__name__}: {error}"
    wanted = None if _lies(data) else by_pil(data)
    end = "bad image" if found is None else "pixels"
    if (found is None) != (wanted is None):
        return end, f"{said}, and PIL {'reads' if found is None else 'fails'}"
    same = found is None or np.array_equal(found, wanted)
    return end, "" if same else "pixels differ from PIL's"


def pipelines(task: Task) -> Outcome:
    """Every sample of an epoch has the views of `threads`, or is in the ledger."""
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
    """Same for FFCV's compiled code, which reads a .beton."""
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
    """Check that each sample is there once or in the ledger, and that substitutes are good."""
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
    """Decisions and pixels must match, except for damage that libjpeg warns of and DALI ignores."""
    for difference in one.differs(other, lambda id: only_pil_minds(files[id])):
        outcome.failed(f"{difference} (of those from {first} on)")


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
