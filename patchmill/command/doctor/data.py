"""Data as patchmill opens it: its kind, labels and masks, some images, and how fast they load."""

from __future__ import annotations

import logging
import shlex
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from patchmill.command.doctor.finding import Finding
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.log_lines import StderrLines

MOST = 64  # images to read
SECONDS = 5.0  # of reading and of decoding
THREADS = 8
MANY_FILES = 50_000
LARGE_SIDE = 1024  # of the median image; training crops have 224
PROGRESSIVE = 0xC2

KINDS = {
    "Folder": "a folder of images",
    "Shards": "WebDataset shards",
    "Beton": "a .beton",
    "Scenes": "made-up scenes",
    "StreamSource": "streamed shards",
    "Parquet": "Parquet files",
    "Zip": "a zip",
    "Lmdb": "an LMDB database",
    "PathList": "a list of images",
}
MAGIC = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"P6": "PPM",
}


class Trial(NamedTuple):
    """Some images, encoded and decoded."""

    encoded: list[bytes]
    sides: list[int]  # the longer one of each decoded image
    read_seconds: float
    decode_seconds: float
    problems: list[str]


def check(data: str) -> Iterator[Finding]:
    from patchmill.loaders.sources import open_data

    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[StderrLines()])
    began = time.perf_counter()
    try:
        source: Any = open_data(data)
    except MillError as error:
        yield Finding("data", "broken", " ".join(str(error).split()), "nothing can be loaded")
        return
    seconds = time.perf_counter() - began
    kind = KINDS.get(type(source).__name__, type(source).__name__)
    yield Finding("data", "ok", f"{source.name}: {kind}, opened in {seconds:.1f} s")
    if source.sample_count is None:
        text = "unknown, as the shards are streamed: steps= of loaders.build sets an epoch's length"
        yield Finding("samples", "ok", text)
        return
    yield Finding("samples", "ok", f"{len(source):,}")
    yield from _labels(source)
    yield from _masks(source, data)
    trial = _try(source)
    yield from _contents(trial, len(source), data)
    if trial.sides:
        yield from _speed(source, trial)
        yield from _advice(source, trial, data)


PROBES = {"data": check}


# -------------------------------------------------------------------------------------------- parts


def _labels(source: Any) -> Iterator[Finding]:
    if source.labels is None:
        cost = "no accuracy can be measured, and supervised training has nothing to learn"
        yield Finding("labels", "absent", "none", cost)
        return
    counts = Counter(source.labels.tolist())
    least, most = min(counts.values()), max(counts.values())
    text = f"{len(counts):,} classes, of {least:,} to {most:,} images"
    yield Finding(
        "labels", "ok", text if least < most else f"{len(counts):,} classes, of {most:,} images"
    )


def _masks(source: Any, data: str) -> Iterator[Finding]:
    from patchmill.loaders.copypaste.masks import open_masks

    try:
        masks = open_masks(source)
    except MillError as error:
        yield Finding("masks", "warning", " ".join(str(error).split()), "DiLo cannot paste by them")
        return
    if masks is None:
        yield Finding(
            "masks",
            "absent",
            "none",
            "DiLo's recipes need them",
            f"patchmill masks {shlex.quote(data)}",
        )
    else:
        yield Finding("masks", "ok", f"in {masks.name}")


def _try(source: Any) -> Trial:
    """Read and decode images from all parts of the data for a few seconds."""
    from patchmill.loaders.decode.decoder import BadImage, Decoder

    count = len(source)
    ids = [number * count // min(MOST, count) for number in range(min(MOST, count))]
    encoded, sides, problems, decoder = [], [], [], Decoder()
    began = time.perf_counter()
    for id in ids:
        try:
            encoded.append(source.read(id))
        except OSError as error:
            problems.append(f"{source.where(id)}: {error.strerror or error}")
        if time.perf_counter() - began > SECONDS:
            break
    read_seconds = time.perf_counter() - began
    began = time.perf_counter()
    for id, data in zip(ids, encoded, strict=False):
        try:
            sides.append(max(decoder(data).shape[:2]))
        except BadImage as error:
            problems.append(f"{source.where(id)}: {error}")
        if time.perf_counter() - began > SECONDS:
            break
    return Trial(encoded, sides, read_seconds, time.perf_counter() - began, problems)


def _contents(trial: Trial, count: int, data: str) -> Iterator[Finding]:
    if trial.problems:
        tried = len(trial.encoded) + len(trial.problems)
        text = f"{len(trial.problems)} of {tried} that were tried, such as {trial.problems[0]}"
        cost = "such images are replaced; more than 1 in 1000 stop a run"
        yield Finding(
            "unreadable",
            "warning",
            text,
            cost,
            f"patchmill prepare {shlex.quote(data)} OUT --verify",
        )
    if not trial.sides:
        return
    kinds = Counter(map(_format, trial.encoded))
    kilobytes = statistics.mean(map(len, trial.encoded)) / 1e3
    formats = ", ".join(f"{share} {name}" for name, share in kinds.most_common())
    side = statistics.median(trial.sides)
    text = f"of {len(trial.encoded)}: {formats}; {kilobytes:,.0f} kB, {side:,.0f} px"
    yield Finding("images", "ok", f"{text} on the longer side")


def _speed(source: Any, trial: Trial) -> Iterator[Finding]:
    from patchmill.loaders.common.threads import map_in_threads

    rate = len(trial.encoded) / max(trial.read_seconds, 1e-9)
    megabytes = sum(map(len, trial.encoded)) / 1e6 / max(trial.read_seconds, 1e-9)
    began = time.perf_counter()
    ids = range(min(len(source), len(trial.encoded)))
    try:
        for _ in map_in_threads(source.read, ids, THREADS):
            pass
    except OSError:
        ids = range(0)
    threaded = len(ids) / max(time.perf_counter() - began, 1e-9)
    text = f"{rate:,.0f} images/s, {megabytes:,.0f} MB/s by one thread"
    more = f"; {threaded:,.0f} images/s by {THREADS}" if ids else ""
    yield Finding("reading", "ok", f"{text}{more}, possibly partly from memory")
    decoded = len(trial.sides) / max(trial.decode_seconds, 1e-9)
    yield Finding("decoding", "ok", f"{decoded:,.0f} images/s by one core, without views")


def _advice(source: Any, trial: Trial, data: str) -> Iterator[Finding]:
    """Changes that would make loading faster."""
    from pathlib import Path

    from patchmill.command.doctor.machine import NETWORK, file_system

    is_folder = type(source).__name__ == "Folder"
    kind = file_system(Path(data)) if Path(data).exists() else ""
    if is_folder and (len(source) > MANY_FILES or kind in NETWORK):
        where = f"on a network disk ({kind})" if kind in NETWORK else "in separate files"
        yield Finding(
            "files",
            "warning",
            f"{len(source):,} images are {where}",
            "each one costs a request; shards are read in large pieces",
            f"patchmill prepare {shlex.quote(data)} OUT --format shards",
        )
    elif kind in NETWORK:
        text = f"the data are on a network disk ({kind})"
        cost = "the first epoch is as fast as that disk; a local copy is not"
        yield Finding("place", "warning", text, cost, f"cp -r {shlex.quote(data)} LOCAL_DISK")
    side = statistics.median(trial.sides)
    if side > LARGE_SIDE:
        yield Finding(
            "size",
            "warning",
            f"images are large: {side:,.0f} px on the longer side",
            "most of the decoded pixels are discarded",
            f"patchmill prepare {shlex.quote(data)} OUT --max-side 512",
        )
    kinds = [_format(encoded) for encoded in trial.encoded]
    slow = sum(kind not in ("JPEG", "PPM") for kind in kinds)
    if slow > len(kinds) / 2:
        yield Finding(
            "format",
            "warning",
            f"{slow} of {len(kinds)} images are not JPEGs",
            "they are decoded by Pillow, and by threads where the views are made on a GPU",
            f"patchmill prepare {shlex.quote(data)} OUT --max-side 512",
        )
    progressive = _progressive(trial.encoded)
    if progressive > len(kinds) / 2:
        yield Finding(
            "format",
            "warning",
            f"{progressive} of {len(kinds)} JPEGs are progressive",
            "they take longer to decode, and a GPU's JPEG engines cannot decode them",
            f"patchmill prepare {shlex.quote(data)} OUT --max-side 512",
        )


def _format(encoded: bytes) -> str:
    return next((name for magic, name in MAGIC.items() if encoded.startswith(magic)), "other")


def _progressive(encoded: Sequence[bytes]) -> int:
    from patchmill.loaders.decode.jpeg_header import jpeg_frame

    frames = [jpeg_frame(data) for data in encoded]
    return sum(frame is not None and frame.marker == PROGRESSIVE for frame in frames)
