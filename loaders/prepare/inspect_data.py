"""What is inside prepared data, and whether every byte is still as it was written."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from patchmill.loaders.common.columns import Columns
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.copypaste.masks import SUFFIX as MASKS
from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.prepare import finish, images, inspect_masks, journal, output_paths
from patchmill.loaders.prepare.output_paths import Place
from patchmill.loaders.prepare.report import counted, size
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.beton.source import Beton
from patchmill.loaders.sources.shards import index as shard_index
from patchmill.loaders.sources.shards import paths as shard_paths
from patchmill.loaders.sources.shards import tar

_THREADS = 2  # one reads while the other adds up
_SHOWN_CLASSES = 5
_PERCENTILES = (5, 50, 95)


class Record(NamedTuple):
    """An image: its size in bytes, and height and width in pixels."""

    bytes: int
    height: int
    width: int


@dataclass
class Findings:
    """Of one file."""

    records: list[Record] = field(default_factory=list)
    labels: np.ndarray | None = None
    checked: int = 0  # images whose checksum was there to compare
    problems: list[str] = field(default_factory=list)


def inspect(out: Path) -> tuple[str, list[str]]:
    """What is there, in lines to print, and what differs from what was written."""
    if out.suffix == MASKS and out.is_file():
        return inspect_masks.inspect_file(out)
    place = output_paths.choose(out, "shards" if out.is_dir() else None)
    if not out.exists():
        problem = next(iter(_incomplete(place, None)), f"there is no {out}: check the path")
        raise MillError(problem)
    if place.format == "shards" and not out.is_dir():
        raise MillError(f"{out} is a file, neither a folder of shards nor a .beton")
    about = output_paths.load(place.about) if place.about.exists() else None
    problems = _incomplete(place, about)
    if out.is_dir():
        shards = _shards(place, about, problems)
        with track(f"verifying {out}", len(shards)) as advance:
            found = list(map_in_threads(lambda shard: _shard(shard, advance), shards, _THREADS))
    else:
        found = [_beton(out, about)]
    problems += [problem for one in found for problem in one.problems]
    masks, more = ([], []) if problems else inspect_masks.inside(open_source(out))
    problems += more
    return "\n".join(_lines(place, about, found, masks, problems)), problems


def _incomplete(place: Place, about: dict[str, Any] | None) -> list[str]:
    if about is not None:
        return []
    for path in place.journals():
        if begun := journal.read(path):
            ranks = finish.unfinished(place, begun.identity.get("world_size", 1))
            which = f" by rank {', '.join(map(str, ranks))}" if ranks and ranks != [0] else ""
            return [f"{place.out} is not complete: run its prepare command again{which}"]
    return []


# ------------------------------------------------------------------------------------------- shards


class _Shard(NamedTuple):
    path: Path
    about: dict[str, Any] | None  # as dataset.json has it


def _shards(place: Place, about: dict[str, Any] | None, problems: list[str]) -> list[_Shard]:
    there = {Path(path).name for path in shard_paths.expand_paths(place.out)}
    if about is None:
        if not there and not problems:
            raise MillError(f"there are no shards in {place.out}")
        return [_Shard(place.out / name, None) for name in sorted(there)]
    listed = {shard["name"]: shard for shard in about["shards"]}
    problems += [f"{name} is missing" for name in listed if name not in there]
    problems += [f"{name} is not in {place.about.name}" for name in sorted(there - set(listed))]
    return [_Shard(place.out / name, listed[name]) for name in listed if name in there]


def _shard(shard: _Shard, advance: Any) -> Findings:
    found, name = Findings(), shard.path.name
    try:
        index = _index(shard)
        found.labels = index.columns.get("labels")
        file = os.open(shard.path, os.O_RDONLY)
        try:
            checksum = _go_through(name, file, index, found)
        finally:
            os.close(file)
        if shard.about and f"{checksum:08x}" != shard.about["crc32"] and not found.problems:
            found.problems.append(f"{name}: its bytes differ from those written, between images")
    except (MillError, OSError) as error:
        found.problems.append(f"{name}: {getattr(error, 'strerror', None) or error}")
    advance(1)
    return found


def _index(shard: _Shard) -> Columns:
    """The one beside it, which shards that were made here have; else of the tar's headers."""
    if shard.about or os.path.exists(shard_index.index_path(shard.path)):
        return shard_index.read_index(shard.path)
    status = shard.path.stat()
    contents = shard_index.scan_shard(shard.path)
    return shard_index.build_index(str(shard.path), contents, status.st_size, status.st_mtime_ns)


def _go_through(name: str, file: int, index: Columns, found: Findings) -> int:
    """Compare each image, and add up the whole file, in one go from its start to its end."""
    whole, at = 0, 0
    checksums = index.columns.get("checksums")
    for i, (offset, count) in enumerate(
        zip(index["offsets"].tolist(), index["sizes"].tolist(), strict=True)
    ):
        whole = zlib.crc32(tar.read_at(file, offset - at, at), whole)
        data = tar.read_at(file, count, offset)
        whole, at = zlib.crc32(data, whole), offset + count
        if checksums is not None:
            found.checked += 1
            if zlib.crc32(data) != int(checksums[i]):
                member = os.fsdecode(tar.name_before(file, offset))
                found.problems.append(f"{name}: the checksum of {member} differs")
        found.records.append(_record(data))
    while rest := os.pread(file, 1 << 20, at):
        whole, at = zlib.crc32(rest, whole), at + len(rest)
    return whole


# ------------------------------------------------------------------------------------------ betons


def _beton(path: Path, about: dict[str, Any] | None) -> Findings:
    found, source = Findings(), Beton(path)
    found.labels = source.labels
    if about and f"{finish.table_checksum(path):08x}" != about["checksums"]["table"]:
        found.problems.append(f"{path}: its table differs from what was written")

    with track(f"verifying {path}", len(source)) as advance:
        for i in range(len(source)):
            try:
                data = source.read(i)
                if source.checksums is not None:
                    found.checked += 1
                    if zlib.crc32(_stored(data)) != int(source.checksums[i]):
                        found.problems.append(f"{source.where(i)}: its checksum differs")
                found.records.append(_record(data))
            except OSError as error:
                found.problems.append(f"{source.where(i)}: {error.strerror or error}")
            advance(1)
    return found


def _stored(data: bytes) -> bytes:
    """Without the line that makes a PPM of raw pixels."""
    return data[data.index(b"\n") + 1 :] if data.startswith(b"P6 ") else data


# ----------------------------------------------------------------------------------------- the text


def _record(data: bytes) -> Record:
    found = images.look(data).size
    if found is None:
        try:
            shape = decode(data).shape
            found = shape[0], shape[1]
        except BadImage:
            found = 0, 0
    return Record(len(data), *found)


def _lines(
    place: Place,
    about: dict[str, Any] | None,
    found: Sequence[Findings],
    masks: Sequence[str],
    problems: Sequence[str],
) -> Iterator[str]:
    records = [record for one in found for record in one.records]
    kind = finish.FORMATS[place.format]
    yield f"format     {kind}" + (f", made by {about['made_by']}" if about else "")
    within = f" in {len(found):,} shards" if place.format == "shards" else ""
    yield f"samples    {len(records):,}{within}"
    yield from _class_lines(about, [one.labels for one in found if one.labels is not None])
    if records:
        columns = np.array(records)
        total = int(columns[:, 0].sum())
        yield f"bytes      {size(total)}; an image {_percentiles(columns[:, 0], size)}"
        for title, side in (("height", 1), ("width", 2)):
            yield f"{title:<10} {_percentiles(columns[:, side], lambda px: f'{px:.0f}')} px"
    yield from masks
    if about:
        options = {k: v for k, v in about["options"].items() if v is not None and v is not False}
        yield f"made of    {about['source']}"
        yield "with       " + ", ".join(f"{name} {value}" for name, value in options.items())
        yield from (f"odd ones   {counted(about[key])}" for key in ["traits"] if about[key])
        yield from (f"changed    {counted(about[key])}" for key in ["changes"] if about[key])
        if about["bad"]:
            yield f"left out   {about['bad']:,}, listed in {place.bad}"
    checked = sum(one.checked for one in found)
    verdict = f"{len(problems):,} problems" if problems else "nothing differs"
    yield f"verified   the checksums of {checked:,} images: {verdict}"
    if checked < len(records):
        yield f"           {len(records) - checked:,} images have none"


def _class_lines(about: dict[str, Any] | None, labels: Sequence[np.ndarray]) -> Iterator[str]:
    names = about["classes"] if about else []
    joined = np.concatenate(labels) if labels else np.empty(0, np.int64)
    if not len(joined) or (joined < 0).all():
        yield "classes    none: no labels"
        return
    counts = np.unique(joined, return_counts=True)[1]
    listed = ", ".join(names[:_SHOWN_CLASSES]) + (", ..." if len(names) > _SHOWN_CLASSES else "")
    yield (
        f"classes    {len(counts):,}, of {counts.min():,} to {counts.max():,} samples"
        + (f": {listed}" if listed else "")
    )


def _percentiles(values: np.ndarray, shown: Any) -> str:
    marks: Iterable[float] = np.percentile(values, _PERCENTILES)
    return ", ".join(
        f"{percent} %: {shown(value)}" for percent, value in zip(_PERCENTILES, marks, strict=True)
    )
