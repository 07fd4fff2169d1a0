"""The index of one shard: where its samples lie, so that any of them is one read away.

Kept beside the shard, as `data-000000.tar.index`, where a tool wrote it together with the shard
(then with checksums), else in the cache, made by going through the tar's headers. A file of
`columns`, one row for each sample, in the order in which their images lie in the shard:

    offsets u8, sizes u4          the image's bytes
    checksums u4                  CRC-32 of the image, where the index has checksums
    labels i8                     where the samples have labels: then all of them
    mask_offsets u8, mask_sizes u4, mask_checksums u4
                                  where any sample has a mask; size 0 where it has none

Its meta data: `tar_bytes` and `tar_mtime_ns` of the shard it is good for, `members` (regular files
in it), `classes` (names, if known), `fingerprint` (of the images' names, offsets and sizes),
`imageless` (samples passed over for want of an image) and the `first_imageless` one's key.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchmill.loaders.common import columns
from patchmill.loaders.common.columns import Columns
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.shards import samples as shard_samples
from patchmill.loaders.sources.shards import tar
from patchmill.loaders.sources.shards.samples import SampleError
from patchmill.loaders.sources.shards.tar import FileReader, Member, TarError

KIND = "shard index 1"

DTYPES = {
    "offsets": "<u8",
    "sizes": "<u4",
    "checksums": "<u4",
    "labels": "<i8",
    "mask_offsets": "<u8",
    "mask_sizes": "<u4",
    "mask_checksums": "<u4",
}

_MOST_BYTES = 2**32 - 1  # of an image
_MOST_LABEL_BYTES = 1 << 24


@dataclass(frozen=True)
class ShardSample:
    """One row: what a tool that writes a shard knows of each sample that it has put there."""

    name: bytes  # of the image's member
    offset: int
    size: int
    label: int | None = None
    mask_offset: int = 0
    mask_size: int = 0  # 0: no mask
    checksum: int | None = None  # CRC-32, as zlib.crc32 gives it
    mask_checksum: int = 0


@dataclass(frozen=True)
class ShardContents:
    """What is in a shard."""

    samples: Sequence[ShardSample]
    members: int  # regular files, whatever they are
    imageless: Sequence[bytes] = ()  # keys of samples passed over for want of an image


def index_path(shard: str | Path) -> str:
    """Where a shard's own index lies."""
    return f"{shard}.index"


def write_index(shard: str | Path, contents: ShardContents, classes: Sequence[str] = ()) -> None:
    """Write the index beside a finished shard; raises OSError."""
    status = os.stat(shard)
    index = build_index(str(shard), contents, status.st_size, status.st_mtime_ns, classes)
    columns.write(Path(index_path(shard)), KIND, index.columns, index.meta)


def read_index(shard: str | Path) -> Columns:
    """The index beside the shard; a MillError where it is missing, damaged or another tar's."""
    path, status = Path(index_path(shard)), os.stat(shard)
    index = columns.read(path, KIND)
    if index.meta["tar_bytes"] != status.st_size:
        raise _not_of_this_tar(path)
    if index.meta["tar_mtime_ns"] != status.st_mtime_ns:  # a copy, or another tar of this size
        found = scan_shard(shard)
        names = list_fingerprint(found.samples)
        if (found.members, names) != (index.meta["members"], index.meta["fingerprint"]):
            raise _not_of_this_tar(path)
    return index


def build_index(
    shard: str,
    contents: ShardContents,
    tar_bytes: int,
    tar_mtime_ns: int,
    classes: Sequence[str] = (),
) -> Columns:
    """The index, in memory."""
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
    return Columns(meta, {name: np.array(row, DTYPES[name]) for name, row in rows.items()})


def list_fingerprint(samples: Sequence[ShardSample]) -> str:
    """Equal for equal lists of images, whether or not their contents have been looked at."""
    digest = hashlib.sha256()
    for sample in sorted(samples, key=lambda sample: sample.offset):
        digest.update(b"%b\0%d %d\n" % (sample.name, sample.offset, sample.size))
    return digest.hexdigest()[:32]


# ----------------------------------------------------------------------------------- from the tar


def scan_shard(shard: str | Path, checksums: bool = False) -> ShardContents:
    """What the tar's headers say; the images are only read for their checksums."""
    try:
        descriptor = os.open(shard, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MillError(f"cannot open the shard {shard}: {error.strerror}") from None
    try:
        reader = FileReader(descriptor)
        contents = _group(str(shard), reader)
        return _with_checksums(contents, reader) if checksums else contents
    except TarError as error:
        raise MillError(f"the shard {shard} {error}") from None
    except OSError as error:
        raise MillError(f"cannot read the shard {shard}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _group(shard: str, reader: FileReader) -> ShardContents:
    parts: dict[bytes, dict[str, Member]] = {}
    labels: dict[bytes, int] = {}
    count = 0
    for member in tar.members(reader):
        count += 1
        named = shard_samples.split_name(member.name)
        if named is None:
            continue
        key, extension = named
        sample = parts.setdefault(key, {})
        if extension in sample:
            raise _complain(shard, member, "is there twice: samples need keys of their own")
        sample[extension] = member
        if extension in (shard_samples.CLASS, shard_samples.JSON):
            if member.size > _MOST_LABEL_BYTES:
                raise _complain(shard, member, f"has {member.size:,} bytes, too many for a label")
            data = reader.take(member.size)
            if len(data) < member.size:
                continue  # truncated: the next turn says so
            try:
                label = shard_samples.parse_label(extension, data)
            except SampleError as error:
                raise _complain(shard, member, str(error)) from None
            if label is not None and (extension == shard_samples.CLASS or key not in labels):
                labels[key] = label

    samples, imageless = [], []
    for key, sample in parts.items():
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
            if member.size > _MOST_BYTES:
                raise _complain(shard, member, "has more than 4 GiB: it cannot be an image")
        at = (mask.offset, mask.size) if mask else (0, 0)
        samples.append(ShardSample(image.name, image.offset, image.size, labels.get(key), *at))
    return ShardContents(samples, count, imageless)


def _with_checksums(contents: ShardContents, reader: FileReader) -> ShardContents:
    def checked(sample: ShardSample) -> ShardSample:
        image = zlib.crc32(reader.at(sample.offset, sample.size))
        mask = zlib.crc32(reader.at(sample.mask_offset, sample.mask_size))
        at = (sample.mask_offset, sample.mask_size)
        return ShardSample(sample.name, sample.offset, sample.size, sample.label, *at, image, mask)

    samples = [checked(sample) for sample in contents.samples]
    return ShardContents(samples, contents.members, contents.imageless)


def _complain(shard: str, member: Member, what: str) -> MillError:
    return MillError(f"the member {os.fsdecode(member.name)!r} of the shard {shard} {what}")


def _not_of_this_tar(path: Path) -> MillError:
    return MillError(
        f"cannot use {path}: it is not the index of the tar beside it; delete it, or make it again"
    )
