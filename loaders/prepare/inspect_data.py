"""Describe prepared data, and verify that every byte is still as it was written."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import printable
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.copypaste.masks import SUFFIX as MASKS
from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.files.columns import Columns
from patchmill.loaders.prepare import images, inspect_masks, journal, output
from patchmill.loaders.prepare.output import FORMAT_TITLES, OutputPaths
from patchmill.loaders.prepare.report import format_bytes, format_counts
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.beton.source import Beton
from patchmill.loaders.sources.shards import index as shard_index
from patchmill.loaders.sources.shards import paths as shard_paths
from patchmill.loaders.sources.shards import tar

_THREADS = 2  # so that one reads while the other computes checksums
_SHOWN_CLASSES = 5
_PERCENTILES = (5, 50, 95)


class ImageSize(NamedTuple):
    """Size in bytes, and height and width in pixels."""

    bytes: int
    height: int
    width: int


@dataclass
class FileReport:
    """Contents and problems of one shard or .beton."""

    sizes: list[ImageSize] = field(default_factory=list)
    labels: np.ndarray | None = None
    checked: int = 0  # images that have a checksum
    problems: list[str] = field(default_factory=list)


def inspect(out: Path) -> tuple[str, list[str]]:
    """Describe an output; return the text to print, and the differences from what was written."""
    if out.suffix == MASKS and out.is_file():
        return inspect_masks.inspect_file(out)
    paths = output.choose_paths(out, "shards" if out.is_dir() else None)
    if not out.exists():
        problem = next(iter(_incomplete(paths, None)), f"there is no {out}: check the path")
        raise MillError(problem)
    if paths.format == "shards" and not out.is_dir():
        raise MillError(f"{out} is a file, neither a folder of shards nor a .beton")
    metadata = output.read_metadata(paths.metadata) if paths.metadata.exists() else None
    problems = _incomplete(paths, metadata)
    if out.is_dir():
        shards = _shards(paths, metadata, problems)
        with track(f"verifying {out}", len(shards)) as advance:
            reports = list(map_in_threads(lambda s: _verify_shard(s, advance), shards, _THREADS))
    else:
        reports = [_verify_beton(out, metadata)]
    problems += [problem for report in reports for problem in report.problems]
    masks, more = ([], []) if problems else inspect_masks.inspect_inside(open_source(out))
    problems += more
    return "\n".join(_lines(paths, metadata, reports, masks, problems)), problems


def _incomplete(paths: OutputPaths, metadata: dict[str, Any] | None) -> list[str]:
    if metadata is not None:
        return []
    for path in paths.journals():
        if state := journal.read(path):
            ranks = output.unfinished_ranks(paths, state.identity.get("world_size", 1))
            which = f" by rank {', '.join(map(str, ranks))}" if ranks and ranks != [0] else ""
            return [f"{paths.out} is incomplete: run its prepare command again{which}"]
    return []


# ------------------------------------------------------------------------------------------- shards


class _Shard(NamedTuple):
    path: Path
    entry: dict[str, Any] | None  # in dataset.json


def _shards(
    paths: OutputPaths, metadata: dict[str, Any] | None, problems: list[str]
) -> list[_Shard]:
    """The shards that exist; adds missing and unlisted ones to `problems`."""
    existing = {Path(path).name for path in shard_paths.expand_paths(paths.out)}
    if metadata is None:
        if not existing and not problems:
            raise MillError(f"there are no shards in {paths.out}")
        return [_Shard(paths.out / name, None) for name in sorted(existing)]
    listed = {shard["name"]: shard for shard in metadata["shards"]}
    problems += [f"{name} is missing" for name in listed if name not in existing]
    problems += [
        f"{name} is not in {paths.metadata.name}" for name in sorted(existing - set(listed))
    ]
    return [_Shard(paths.out / name, listed[name]) for name in listed if name in existing]


def _verify_shard(shard: _Shard, advance: Any) -> FileReport:
    report, name = FileReport(), printable(shard.path.name)
    try:
        index = _index(shard)
        report.labels = index.columns.get("labels")
        file = os.open(shard.path, os.O_RDONLY)
        try:
            checksum = _verify_images(name, file, index, report)
        finally:
            os.close(file)
        if shard.entry and f"{checksum:08x}" != shard.entry["crc32"] and not report.problems:
            report.problems.append(f"{name}: bytes between its images differ from those written")
        if not report.problems:
            report.problems += _compare_with_tar(shard.path, index)
    except (MillError, OSError) as error:
        report.problems.append(f"{name}: {getattr(error, 'strerror', None) or error}")
    advance(1)
    return report


def _index(shard: _Shard) -> Columns:
    """Read a shard's index, or build one from the tar's headers if there is none."""
    if shard.entry or os.path.exists(shard_index.index_path(shard.path)):
        return shard_index.read_index(shard.path)
    status = shard.path.stat()
    contents = shard_index.scan_shard(shard.path)
    return shard_index.build_index(str(shard.path), contents, status.st_size, status.st_mtime_ns)


def _compare_with_tar(path: Path, index: Columns) -> list[str]:
    """Differences between an index and the tar's own headers and labels."""
    contents = shard_index.scan_shard(path)
    found = shard_index.build_index(
        str(path), contents, index.meta["tar_bytes"], index.meta["tar_mtime_ns"]
    )
    differing = [
        name
        for name, column in found.columns.items()
        if name in index.columns and not np.array_equal(column, index[name])
    ]
    if found.meta["fingerprint"] != index.meta["fingerprint"] and not differing:
        differing = ["fingerprint"]
    index_name = Path(shard_index.index_path(path)).name
    return [f"{index_name}: its {', '.join(differing)} differ from the tar"] if differing else []


def _verify_images(name: str, file: int, index: Columns, report: FileReport) -> int:
    """Verify each image in one pass over the file; return the checksum of the whole file."""
    file_checksum, position = 0, 0
    checksums = index.columns.get("checksums")
    for i, (offset, count) in enumerate(
        zip(index["offsets"].tolist(), index["sizes"].tolist(), strict=True)
    ):
        before = tar.read_at(file, offset - position, position)
        file_checksum = zlib.crc32(before, file_checksum)
        data = tar.read_at(file, count, offset)
        file_checksum, position = zlib.crc32(data, file_checksum), offset + count
        if checksums is not None:
            report.checked += 1
            if zlib.crc32(data) != int(checksums[i]):
                member = printable(os.fsdecode(tar.name_before(file, offset)))
                report.problems.append(f"{name}: the checksum of {member} differs")
        report.sizes.append(_image_size(data))
    while rest := os.pread(file, 1 << 20, position):
        file_checksum, position = zlib.crc32(rest, file_checksum), position + len(rest)
    return file_checksum


# ------------------------------------------------------------------------------------------ betons


def _verify_beton(path: Path, metadata: dict[str, Any] | None) -> FileReport:
    report, source = FileReport(), Beton(path)
    report.labels = source.labels
    if metadata and f"{output.beton_table_checksum(path):08x}" != metadata["checksums"]["table"]:
        report.problems.append(f"{path}: its table differs from what was written")

    with track(f"verifying {path}", len(source)) as advance:
        for i in range(len(source)):
            try:
                data = source.read(i)
                if source.checksums is not None:
                    report.checked += 1
                    if zlib.crc32(_stored_bytes(data)) != int(source.checksums[i]):
                        report.problems.append(f"{source.where(i)}: its checksum differs")
                report.sizes.append(_image_size(data))
            except OSError as error:
                report.problems.append(f"{source.where(i)}: {error.strerror or error}")
            advance(1)
    return report


def _stored_bytes(data: bytes) -> bytes:
    """Raw pixels without the PPM header that the source prepends."""
    return data[data.index(b"\n") + 1 :] if data.startswith(b"P6 ") else data


# --------------------------------------------------------------------------------------------- text


def _image_size(data: bytes) -> ImageSize:
    size = images.read_info(data).size
    if size is None:
        try:
            shape = decode(data).shape
            size = shape[0], shape[1]
        except BadImage:
            size = 0, 0
    return ImageSize(len(data), *size)


def _lines(
    paths: OutputPaths,
    metadata: dict[str, Any] | None,
    reports: Sequence[FileReport],
    masks: Sequence[str],
    problems: Sequence[str],
) -> Iterator[str]:
    sizes = [size for report in reports for size in report.sizes]
    title = FORMAT_TITLES[paths.format]
    yield f"format     {title}" + (f", made by {metadata['made_by']}" if metadata else "")
    shards = f" in {len(reports):,} shards" if paths.format == "shards" else ""
    yield f"samples    {len(sizes):,}{shards}"
    yield from _class_lines(metadata, [r.labels for r in reports if r.labels is not None])
    if sizes:
        columns = np.array(sizes)
        total, per_image = int(columns[:, 0].sum()), _percentiles(columns[:, 0], format_bytes)
        yield f"bytes      {format_bytes(total)}; an image {per_image}"
        for title, side in (("height", 1), ("width", 2)):
            yield f"{title:<10} {_percentiles(columns[:, side], lambda px: f'{px:.0f}')} px"
    yield from masks
    if metadata:
        options = {k: v for k, v in metadata["options"].items() if v is not None and v is not False}
        yield f"source     {metadata['source']}"
        yield "options    " + ", ".join(f"{name} {value}" for name, value in options.items())
        if metadata["traits"]:
            yield f"unusual    {format_counts(metadata['traits'])}"
        if metadata["changes"]:
            yield f"changed    {format_counts(metadata['changes'])}"
        if metadata["bad"]:
            yield f"skipped    {metadata['bad']:,}, listed in {paths.bad_list}"
    checked = sum(report.checked for report in reports)
    verdict = f"{len(problems):,} problems" if problems else "nothing differs"
    yield f"verified   the checksums of {checked:,} images: {verdict}"
    if checked < len(sizes):
        yield f"           {len(sizes) - checked:,} images have none"


def _class_lines(metadata: dict[str, Any] | None, labels: Sequence[np.ndarray]) -> Iterator[str]:
    names = metadata["classes"] if metadata else []
    all_labels = np.concatenate(labels) if labels else np.empty(0, np.int64)
    if not len(all_labels) or (all_labels < 0).all():
        yield "classes    none: no labels"
        return
    counts = np.unique(all_labels, return_counts=True)[1]
    listed = ", ".join(names[:_SHOWN_CLASSES]) + (", ..." if len(names) > _SHOWN_CLASSES else "")
    yield (
        f"classes    {len(counts):,}, of {counts.min():,} to {counts.max():,} samples"
        + (f": {listed}" if listed else "")
    )


def _percentiles(values: np.ndarray, format: Callable[[float], str]) -> str:
    percentiles = np.percentile(values, _PERCENTILES).tolist()
    return ", ".join(
        f"{percent} %: {format(value)}"
        for percent, value in zip(_PERCENTILES, percentiles, strict=True)
    )
