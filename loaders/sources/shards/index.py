"""The index of one shard: offsets of its samples, for random access.

Written next to the shard as `data-000000.tar.index` by the tool that writes the shard (then with
checksums); otherwise built by scanning the tar's headers, and cached. A `columns` file with a row
per sample, in the order of their images in the shard:

    offsets u8, sizes u4          of the image
    checksums u4                  CRC-32 of the image; optional
    labels i8                     present if all samples have a label
    mask_offsets u8, mask_sizes u4, mask_checksums u4
                                  present if any sample has a mask; size 0 for samples without
    folders u4                    number of the image's folder; present if no sample has a label
    folder_names, folder_starts   those folders, as `columns.join` writes them; with `folders`

Metadata: `tar_bytes` and `tar_mtime_ns` of the shard it belongs to, `members` (number of regular
files), `classes` (names, if known), `fingerprint` (of the images' names, offsets and sizes),
`imageless` (number of samples skipped for lack of an image) and `first_imageless` (its first key).
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import columns
from patchmill.loaders.files.columns import Columns
from patchmill.loaders.files.regular_files import open_regular
from patchmill.loaders.sources import class_folders
from patchmill.loaders.sources.shards import index_checks, nested, tar
from patchmill.loaders.sources.shards import samples as shard_samples
from patchmill.loaders.sources.shards.samples import SampleError
from patchmill.loaders.sources.shards.tar import FileReader, Member, TarError

KIND = "shard index 1"

DTYPES = index_checks.DTYPES

_MAX_MEMBER_BYTES = 2**32 - 1
_MAX_LABEL_BYTES = 1 << 24


@dataclass(frozen=True)
class ShardSample:
    """One row of the index, as the writer of a shard reports it."""

    name: bytes  # of the image member
    offset: int
    size: int
    label: int | None = None
    mask_offset: int = 0
    mask_size: int = 0  # 0: no mask
    checksum: int | None = None  # CRC-32, as zlib.crc32 computes it
    mask_checksum: int = 0


@dataclass(frozen=True)
class ShardContents:
    """The samples and member count of a shard."""

    samples: Sequence[ShardSample]
    members: int  # regular files of any kind
    imageless: Sequence[bytes] = ()  # keys of samples without an image, which are skipped


def index_path(shard: str | Path) -> str:
    """Path of the index next to a shard."""
    return f"{shard}.index"


def write_index(shard: str | Path, contents: ShardContents, classes: Sequence[str] = ()) -> None:
    """Write the index next to a finished shard; raises OSError."""
    status = os.stat(shard)
    index = build_index(str(shard), contents, status.st_size, status.st_mtime_ns, classes)
    columns.write(Path(index_path(shard)), KIND, index.columns, index.meta)


def read_index(shard: str | Path) -> Columns:
    """Read the index next to the shard; MillError if it is missing, damaged or of another tar."""
    path, status = Path(index_path(shard)), os.stat(shard)
    index = index_checks.read(path, KIND)
    if index.meta["tar_bytes"] != status.st_size:
        raise _foreign_index(path)
    if index.meta["tar_mtime_ns"] != status.st_mtime_ns:  # a copy, or another tar of this size
        contents = scan_shard(shard)
        actual = list_fingerprint(contents.samples)
        if (contents.members, actual) != (index.meta["members"], index.meta["fingerprint"]):
            raise _foreign_index(path)
    return index


def build_index(
    shard: str,
    contents: ShardContents,
    tar_bytes: int,
    tar_mtime_ns: int,
    classes: Sequence[str] = (),
) -> Columns:
    """Build the index in memory."""
    samples = sorted(contents.samples, key=lambda sample: sample.offset)
    unlabelled = [sample for sample in samples if sample.label is None]
    if unlabelled and len(unlabelled) < len(samples):
        raise MillError(
            f"{len(unlabelled)} of {len(samples)} samples of the shard {shard} have no label, "
            f"first {os.fsdecode(unlabelled[0].name)!r}: give all of them a .cls, or none"
        )
    rows: dict[str, list[int]] = {
        "offsets": [sample.offset for sample in samples],
        "sizes": [sample.size for sample in samples],
    }
    if samples and all(sample.checksum is not None for sample in samples):
        rows["checksums"] = [sample.checksum or 0 for sample in samples]
    if samples and not unlabelled:
        rows["labels"] = [sample.label or 0 for sample in samples]
    if any(sample.mask_size for sample in samples):
        rows["mask_offsets"] = [sample.mask_offset for sample in samples]
        rows["mask_sizes"] = [sample.mask_size for sample in samples]
        if "checksums" in rows:
            rows["mask_checksums"] = [sample.mask_checksum for sample in samples]
    meta = {
        "tar_bytes": tar_bytes,
        "tar_mtime_ns": tar_mtime_ns,
        "members": contents.members,
        "classes": list(classes),
        "fingerprint": list_fingerprint(samples),
        "imageless": len(contents.imageless),
        "first_imageless": os.fsdecode(contents.imageless[0]) if contents.imageless else "",
    }
    content = {name: np.array(row, DTYPES[name]) for name, row in rows.items()}
    return Columns(meta, content | (_folders(samples) if "labels" not in rows else {}))


def _folders(samples: Sequence[ShardSample]) -> dict[str, np.ndarray]:
    folders = [class_folders.folder_of(sample.name) for sample in samples]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(folders))}
    names, starts = columns.join(list(numbers))
    rows = np.array([numbers[folder] for folder in folders], "<u4")
    return {"folders": rows, "folder_names": names, "folder_starts": starts}


def list_fingerprint(samples: Sequence[ShardSample]) -> str:
    """Fingerprint of the images' names, offsets and sizes, not of their content."""
    digest = hashlib.sha256()
    for sample in sorted(samples, key=lambda sample: sample.offset):
        digest.update(b"%b\0%d %d\n" % (sample.name, sample.offset, sample.size))
    return digest.hexdigest()[:32]


# --------------------------------------------------------------------------------------- scanning


def scan_shard(shard: str | Path, checksums: bool = False) -> ShardContents:
    """List a tar's samples from its headers; reads the images only for `checksums`."""
    try:
        descriptor, _ = open_regular(shard)
    except OSError as error:
        raise MillError(f"cannot open the shard {shard}: {error.strerror}") from None
    try:
        reader = FileReader(descriptor)
        contents = _list_samples(str(shard), reader)
        return _with_checksums(contents, reader) if checksums else contents
    except TarError as error:
        raise MillError(f"the shard {shard} {error}") from None
    except OSError as error:
        raise MillError(f"cannot read the shard {shard}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _list_samples(shard: str, reader: FileReader) -> ShardContents:
    """Samples of the tar itself, or if it has none, of the tars in it."""
    tars: list[Member] = []

    def of_the_tar() -> Iterator[tuple[FileReader, Member]]:
        for member in tar.members(reader):
            if nested.is_tar(member.name):
                tars.append(member)
            yield reader, member

    contents = _group_members(shard, of_the_tar())
    if contents.samples or not tars:
        return contents
    return _group_members(shard, nested.members(reader, tars))


def _group_members(shard: str, members: Iterable[tuple[FileReader, Member]]) -> ShardContents:
    samples_by_key: dict[bytes, dict[str, Member]] = {}  # members by extension
    labels: dict[bytes, int] = {}
    count = 0
    for reader, member in members:
        count += 1
        key_and_extension = shard_samples.split_name(member.name)
        if key_and_extension is None:
            continue
        key, extension = key_and_extension
        sample = samples_by_key.setdefault(key, {})
        if extension in sample:
            raise _member_error(shard, member, "occurs twice: every sample needs its own key")
        sample[extension] = member
        if extension in (shard_samples.CLASS, shard_samples.JSON):
            if member.size > _MAX_LABEL_BYTES:
                problem = f"has {member.size:,} bytes, which is too large for a label"
                raise _member_error(shard, member, problem)
            data = reader.take(member.size)
            if len(data) < member.size:
                continue  # truncated: the next member raises TarError
            try:
                label = shard_samples.parse_label(extension, data)
            except SampleError as error:
                raise _member_error(shard, member, str(error)) from None
            if label is not None and (extension == shard_samples.CLASS or key not in labels):
                labels[key] = label

    samples, imageless = [], []
    for key, sample in samples_by_key.items():
        try:
            image = shard_samples.image_member(sample)
        except SampleError as error:
            raise MillError(
                f"the sample {os.fsdecode(key)!r} of the shard {shard} {error}"
            ) from None
        if image is None:
            imageless.append(key)
            continue
        mask = sample.get(shard_samples.MASK)
        for member in filter(None, (image, mask)):
            if member.size > _MAX_MEMBER_BYTES:
                raise _member_error(shard, member, "has more than 4 GiB: it cannot be an image")
        at = (mask.offset, mask.size) if mask else (0, 0)
        samples.append(ShardSample(image.name, image.offset, image.size, labels.get(key), *at))
    return ShardContents(samples, count, imageless)


def _with_checksums(contents: ShardContents, reader: FileReader) -> ShardContents:
    def with_checksum(sample: ShardSample) -> ShardSample:
        image = zlib.crc32(reader.at(sample.offset, sample.size))
        mask = zlib.crc32(reader.at(sample.mask_offset, sample.mask_size))
        at = (sample.mask_offset, sample.mask_size)
        return ShardSample(sample.name, sample.offset, sample.size, sample.label, *at, image, mask)

    samples = [with_checksum(sample) for sample in contents.samples]
    return ShardContents(samples, contents.members, contents.imageless)


def _member_error(shard: str, member: Member, problem: str) -> MillError:
    return MillError(f"the member {os.fsdecode(member.name)!r} of the shard {shard} {problem}")


def _foreign_index(path: Path) -> MillError:
    return MillError(
        f"cannot use {path}: it is not the index of the tar next to it; delete or recreate it"
    )
