"""Streamed WebDataset shards: from object stores, web servers or the output of a command.

URLs are opened by the webdataset package: `https://host/data-{000000..000146}.tar`, `s3://...` (by
the aws command), `gs://...`, `hf://...`, `file:///...`, and `pipe:COMMAND`, which runs the command
in a shell: only use such URLs from people you trust.

Each epoch shuffles the shards and deals them to the ranks; a rank reads its shards in turn, ahead
of use, and shuffles its samples in windows. The samples of a window and their order depend only on
the seed, the epoch, the rank and the number of ranks. `shards.samples` defines which members make a
sample; here they must be adjacent in the tar.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.threads import read_ahead
from patchmill.loaders.order import permutation
from patchmill.loaders.sources.shards import paths, tar
from patchmill.loaders.sources.shards import samples as shard_samples
from patchmill.loaders.sources.shards.samples import SampleError
from patchmill.loaders.sources.shards.tar import Member, StreamReader, TarError, Truncated

log = logging.getLogger("patchmill")

_RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
_WINDOW_SEED_STRIDE = 0x9E3779B97F4A7C15  # odd, so that different windows get different seeds


@dataclass(frozen=True)
class StreamPosition:
    """A position in a rank's stream: the start of the current window and the samples used of it.

    Part of the loader's state: the field names must not change.
    """

    turn: int = 0  # number of this rank's shards before the window
    offset: int = 0  # byte offset of the window in its shard
    position: int = 0  # number of the shard's samples before the window
    taken: int = 0  # number of samples used of the window


@dataclass(frozen=True)
class StreamSample:
    """One sample; the stream resumes after it from the position `after`."""

    id: int  # shard number << 32 | position in the shard; the same in every epoch
    data: bytes
    label: int | None
    mask: bytes | None
    shard: int
    offset: int  # of its first header
    after: StreamPosition


class Stream:
    """A shard set that can only be read sequentially."""

    def __init__(self, urls: str | Sequence[str], *, seed: int = 0, window: int = 1000) -> None:
        self.urls = paths.expand_urls(urls)
        self.name = self.urls[0] + (f" and {len(self.urls) - 1} more" if self.urls[1:] else "")
        self.seed, self.window = seed, window
        self.fingerprint = hashlib.sha256("\n".join(self.urls).encode()).hexdigest()[:16]
        for url in self.urls:
            _check_scheme(url)

    def shards(self, epoch: int, rank: int, world_size: int) -> np.ndarray:
        """Numbers of the shards that a rank reads in an epoch, in reading order."""
        if world_size > len(self.urls):
            raise MillError(
                f"{len(self.urls)} streamed shards cannot be dealt to {world_size} ranks: "
                "make more shards, or download them and read them from a disk"
            )
        return permutation.Order(len(self.urls), self.seed).ids(epoch, 0, len(self.urls))[
            rank::world_size
        ]

    def where(self, sample: StreamSample) -> str:
        """Location of a sample, for the ledger: URL and byte offset."""
        return f"{self.urls[sample.shard]}: at byte {sample.offset}"

    def samples(
        self, epoch: int, rank: int = 0, world_size: int = 1, start: StreamPosition | None = None
    ) -> Iterator[StreamSample]:
        """One rank's samples of an epoch.

        `start` resumes from the `after` of a sample of the same epoch, rank and number of ranks. It
        rereads that sample's window, and nothing before it if the shard's stream is seekable.
        """
        start = start or StreamPosition()
        shards = self.shards(epoch, rank, world_size).tolist()
        records = read_ahead(self._read_shards(shards, start), self.window)
        taken = start.taken
        while window := list(itertools.islice(records, self.window)):
            first, last = window[0], window[-1]
            begin = StreamPosition(first.turn, first.start, first.position)
            shuffled = permutation.Order(
                len(window), (self.seed + (first.id(shards) + 1) * _WINDOW_SEED_STRIDE) % 2**64
            ).ids(epoch, 0, len(window))
            for i in shuffled[taken:].tolist():
                taken += 1
                after = dataclasses.replace(begin, taken=taken)
                if taken == len(window):
                    after = StreamPosition(last.turn, last.stop, last.position + 1)
                record, window[i] = window[i], _USED
                yield record.sample(shards, after)
            taken = 0

    def _read_shards(self, shards: list[int], start: StreamPosition) -> Generator[_Record]:
        offset, position = start.offset, start.position
        for turn in range(start.turn, len(shards)):
            url, failures = self.urls[shards[turn]], 0
            while True:
                try:
                    for record in _read_shard(url, turn, offset, position):
                        yield record
                        offset, position, failures = record.stop, record.position + 1, 0
                    break
                except (OSError, Truncated) as error:
                    reason = _reason(error)
                    if failures == len(_RETRY_DELAYS_S):
                        raise MillError(
                            f"cannot read the shard {url}: it {reason}, even after {failures} "
                            f"retries; check the URL and the network"
                        ) from None
                    log.warning("the shard %s %s; retrying from byte %d", url, reason, offset)
                    time.sleep(_RETRY_DELAYS_S[failures])
                    failures += 1
                except TarError as error:
                    raise MillError(f"the shard {url} {error}") from None
            offset = position = 0


class _Record(NamedTuple):
    """A sample as read from the bytes start..stop of its shard."""

    turn: int
    start: int
    stop: int
    position: int
    data: bytes
    label: int | None
    mask: bytes | None

    def id(self, shards: list[int]) -> int:
        return shards[self.turn] << 32 | self.position

    def sample(self, shards: list[int], after: StreamPosition) -> StreamSample:
        shard = shards[self.turn]
        return StreamSample(
            self.id(shards), self.data, self.label, self.mask, shard, self.start, after
        )


_USED = _Record(0, 0, 0, 0, b"", None, None)  # replaces yielded samples, to free their memory


def _read_shard(url: str, turn: int, offset: int, position: int) -> Iterator[_Record]:
    """The samples of a shard from a byte offset at which one begins."""
    stream = _open(url)
    try:
        reader = _seek(stream, offset)
        imageless = 0
        for start, stop, members in _group_members(url, reader):
            content = _parse_sample(url, members)
            if content is None:
                imageless += 1
                continue
            yield _Record(turn, start, stop, position, *content)
            position += 1
        if imageless:
            log.warning("%d samples without an image are left out of %s", imageless, url)
        reader.skip(
            sys.maxsize
        )  # read to the end, so that a failed command shows in its exit status
        stream.close()
    except Truncated:
        stream.close()  # may raise the more telling OSError of a command that failed
        raise
    finally:
        with contextlib.suppress(OSError):
            stream.close()


def _group_members(
    url: str, reader: StreamReader
) -> Iterator[tuple[int, int, dict[str, tuple[Member, bytes]]]]:
    """(start, stop, members by extension) of each run of adjacent members with the same key."""
    key, start = b"", 0
    members: dict[str, tuple[Member, bytes]] = {}
    for member in tar.members(reader):
        key_and_extension = shard_samples.split_name(member.name)
        if key_and_extension is None:
            continue
        new_key, extension = key_and_extension
        if new_key != key and members:
            yield start, member.start, members
            members = {}
        if not members:
            key, start = new_key, member.start
        if extension in members:
            shown = os.fsdecode(member.name)
            raise MillError(
                f"the member {shown!r} of the shard {url} occurs twice: "
                "every sample needs its own key"
            )
        content = reader.take(member.size)
        if len(content) < member.size:
            raise Truncated(f"is truncated: it ends at byte {reader.position}")
        members[extension] = member, content
    if members:
        ends = [member.offset + member.size for member, _ in members.values()]
        yield start, max(end + -end % tar.BLOCK for end in ends), members


def _parse_sample(
    url: str, members: dict[str, tuple[Member, bytes]]
) -> tuple[bytes, int | None, bytes | None] | None:
    """Image, label and mask of a sample; None if it has no image."""
    member = next(iter(members.values()))[0]
    try:
        image = shard_samples.image_member(members)
        labels = []
        for extension in (shard_samples.CLASS, shard_samples.JSON):
            if extension in members:
                member, content = members[extension]
                labels.append(shard_samples.parse_label(extension, content))
    except SampleError as error:
        shown = os.fsdecode(member.name)
        raise MillError(f"the member {shown!r} of the shard {url} {error}") from None
    if image is None:
        return None
    label = next((label for label in labels if label is not None), None)
    mask = members.get(shard_samples.MASK)
    return image[1], label, mask[1] if mask else None


# ---------------------------------------------------------------------------------------- opening


def _open(url: str) -> Any:
    from webdataset.gopen import gopen, gopen_schemes

    if url.startswith("s3://") and "s3" not in gopen_schemes:
        url = f"pipe:aws s3 cp {shlex.quote(url)} -"
    return gopen(url, "rb")


def _seek(stream: Any, offset: int) -> StreamReader:
    if offset and hasattr(stream, "seekable") and stream.seekable():
        stream.seek(offset)
        return StreamReader(stream, offset)
    reader = StreamReader(stream)
    if reader.skip(offset) < offset:
        raise Truncated(f"is truncated: it ends before byte {offset}")
    return reader


def _check_scheme(url: str) -> None:
    try:
        from webdataset.gopen import gopen_schemes
    except ImportError:
        raise MillError(
            "streamed shards need the webdataset package: pip install webdataset"
        ) from None
    known = {*gopen_schemes, "file", "s3"} - {"__default__"}
    scheme = url.partition(":")[0]
    if scheme not in known:
        raise MillError(
            f"shards cannot be streamed from {url!r}: it must begin with one of "
            f"{', '.join(sorted(known))} and a colon, and pipe:COMMAND reads from anything"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, Truncated):
        return str(error)
    ended = re.search(r"exit (-?\d+)", str(error))
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened or read ({error.strerror})"
    return f"was read by a command that failed (exit {ended[1]})" if ended else f"fails: {error}"
