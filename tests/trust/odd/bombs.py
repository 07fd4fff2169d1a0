"""Decompression bombs through pipelines, in processes whose memory is monitored.

A bomb is a file whose header asks for far more memory than an image of its size in bytes has. None
may cost more than the pixels that a loader allows; whole batches of them, and of genuine large
images, stay within the batch's budget.
"""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from helpers_odd_images import jpeg, saved, with_size
from PIL import Image

from trust.check import Check, Outcome, Task

TOGETHER = 32  # files per batch
SIDE = 1448  # of the large images: two million pixels
MOST_MIB = 160  # on top of the process's baseline; a decoded batch of large images has 192

PROGRAM = """
import resource, sys
from patchmill import loaders
from patchmill.loaders.pipelines import config
config.MEAN_PIXELS, config.LARGEST_IMAGES = 1, 4
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
pipeline, *folders = sys.argv[1:]
for folder in folders:
    loader = loaders.build(folder, "simclr(size=8)", 32, pipeline=pipeline, workers=2, prefetch=1,
                           drop_last=False, max_pixels=1 << 21)
    loader.ledger.limit = 1 << 30
    before = peak()
    ids = [id for batch in loader for id in batch.ids.tolist()]
    print(len(ids), len(set(ids) & set(loader.ledger._bad)), len(loader.ledger), peak() - before)
    loader.close()
"""


def run(task: Task) -> Outcome:
    """Load batches of large images, and of large images and bombs, in each pipeline."""
    outcome, names = Outcome(), ["threads"]
    if importlib.util.find_spec("nvidia.dali"):
        names.append("dali")
    kinds = dict(itertools.islice(bombs(), task.tries))
    folders = _write(task.folder, kinds)
    for name in names if task.tries > 5 else names[-1:]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, name, *map(str, folders)],
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        lines = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
        outcome.tries += len(kinds) + TOGETHER
        if len(lines) != len(folders):
            last = done.stderr.strip().splitlines()[-1:]
            outcome.failed(f"{name}: the process ended with {done.returncode}: {last}")
            continue
        for folder, (samples, bad_in_batches, listed, grown) in zip(folders, lines, strict=True):
            count = len(list(folder.iterdir()))
            outcome.lost += count - samples
            outcome.figures[f"{name}, {folder.name}"] = f"{grown} MiB"
            if bad_in_batches or (folder.name == "bombs") != bool(listed):
                outcome.failed(f"{name}: {listed} of {folder.name} are in the ledger")
            if grown > MOST_MIB:
                outcome.failed(f"{name}: {folder.name} take {grown} MiB")
    return outcome


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that claim two million pixels, just below the limit, or many more."""
    for side in (SIDE, 8192, 13_377, 65_535):
        yield f"jpeg {side}", with_size(jpeg(1, 8, 8), side, side)
        yield f"grey jpeg {side}", with_size(jpeg(2, 8, 8, mode="L"), side, side)
        yield f"cmyk jpeg {side}", with_size(jpeg(3, 8, 8, mode="CMYK"), side, side)
        progressive = jpeg(4, 8, 8, progressive=True)
        at = progressive.find(b"\xff\xc2") + 5
        size = side.to_bytes(2, "big") * 2
        yield f"progressive jpeg {side}", progressive[:at] + size + progressive[at + 4 :]
    for kind in ("PNG", "GIF", "TIFF", "BMP", "WEBP", "JPEG2000"):
        for side in (SIDE, 2048, 9000) if kind in ("PNG", "GIF", "TIFF") else (SIDE, 2048):
            options = {"compression": "group4"} if kind == "TIFF" else {}
            image = Image.new("L" if kind in ("GIF", "JPEG2000", "WEBP") else "1", (side, side))
            yield f"{kind} {side}", saved(image, kind, **options)


def _write(folder: Path, kinds: dict[str, bytes]) -> list[Path]:
    """Write folders of small images, of large ones, and of large ones and bombs."""
    small, large = jpeg(1, 8, 8), jpeg(2, SIDE, SIDE, noise=1, quality=30)
    contents = {
        "small": [small] * TOGETHER,
        "large": [large] * TOGETHER,
        "bombs": [*kinds.values(), *[large] * TOGETHER],
    }
    for name, files in contents.items():
        (folder / name).mkdir()
        for number, data in enumerate(files):
            (folder / name / f"{number:03}.jpg").write_bytes(data)
    return [folder / name for name in contents]


CHECKS = (
    Check(
        "odd-bombs", "decompression bombs and large images: memory within the budget", run,
        short=2, standard=30, long=30, seconds=30, needs=("resource",),
    ),
)  # fmt: skip
