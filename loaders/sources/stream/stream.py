"""WebDataset shards that are streamed: from object stores, web servers or any command's output.

URLs are opened by the webdataset package: `https://host/data-{000000..000146}.tar`, `s3://...` (by
the aws command), `gs://...`, `hf://...`, `file:///...`, and `pipe:COMMAND`, which runs the command
in a shell: only read such URLs from people you trust.

In each epoch the shards are shuffled and dealt to the ranks; a rank reads its shards one after
another, ahead of use, and shuffles its samples in windows. Which samples are in a window, and their
order in it, depends on nothing but the seed, the epoch, the rank and the number of ranks.
`shard_samples` says which members make a sample; here they must lie next to one another.
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

_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # before each further attempt to read on
_SPREAD = 0x9E3779B97F4A7C15  # odd: different windows get different seeds


@dataclass(frozen=True)
class StreamPosition:
    """Where a rank's stream stands: where its window begins, and how much of it has been used."""

    turn: int = 0  # how many of this rank's shards lie before the window
    offset: int = 0  # the byte of the shard at which the window begins
    position: int = 0  # how many samples of the shard lie before the window
    taken: int = 0  # samples of the window that have been used


@dataclass(frozen=True)
class StreamSample:
    """One sample; `after` is where to start in order to continue behind it."""

    id: int  # shard number << 32 | its position in the shard: the same in every epoch
    data: bytes
    label: int | None
    mask: bytes | None
    shard: int
    offset: int  # at which its first header lies
    after: StreamPosition


class Stream:
    """Shards that can only be read from their beginnings."""

    def __init__(self, urls: str | Sequence[str], *, seed: int = 0, window: int = 1000) -> None:
        self.urls = paths.expand_urls(urls)
        self.name = self.urls[0] + (f" and {len(self.urls) - 1} more" if self.urls[1:] else "")
        self.seed, self.window = seed, window
        self.fingerprint = hashlib.sha256("\n".join(self.urls).encode()).hexdigest()[:16]
        for url in self.urls:
            _check_scheme(url)

    def shards(self, epoch: int, rank: int, world_size: int) -> np.ndarray:
        """The numbers of the shards that one rank reads in an epoch, in its order."""
        if world_size > len(self.urls):
            raise MillError(
                f"{len(self.urls)} streamed shards cannot be dealt to {world_size} ranks: "
                "make more shards, or fetch them and read them from a disk"
            )
        return permutation.Order(len(self.urls), self.seed).ids(epoch, 0, len(self.urls))[
            rank::world_size
        ]

    def where(self, sample: StreamSample) -> str:
        """Where the sample lies, for the ledger."""
        return f"{self.urls[sample.shard]}: at byte {sample.offset}"

    def samples(
        self, epoch: int, rank: int = 0, world_size: int = 1, start: StreamPosition | None = None
    ) -> Iterator[StreamSample]:
        """One rank's samples of an epoch, from `start` on: the `after` of a sample of the same
        epoch, rank and number of ranks. Rereads the window of that sample, and nothing before it
        where the shard can be sought in."""
        start = start or StreamPosition()
        shards = self.shards(epoch, rank, world_size).tolist()
        found = read_ahead(self._read_all(shards, start), self.window)
        taken = start.taken
        while window := list(itertools.islice(found, self.window)):
            first, last = window[0], window[-1]
            begin = StreamPosition(first.turn, first.start, first.position)
            shuffled = permutation.Order(
                len(window), (self.seed + (first.id(shards) + 1) * _SPREAD) % 2**64
            ).ids(epoch, 0, len(window))
            for i in shuffled[taken:].tolist():
                taken += 1
                over = taken == len(window)
                after = dataclasses.replace(begin, taken=taken)
                if over:
                    after = StreamPosition(last.turn, last.stop, last.position + 1)
                piece, window[i] = window[i], _USED
                yield piece.sample(shards, after)
            taken = 0

    def _read_all(self, shards: list[int], start: StreamPosition) -> Generator[_Piece]:
        offset, position = start.offset, start.position
        for turn in range(start.turn, len(shards)):
            url, failures = self.urls[shards[turn]], 0
            while True:
                try:
                    for piece in _read(url, turn, offset, position):
                        yield piece
                        offset, position, failures = piece.stop, piece.position + 1, 0
                    break
                except (OSError, Truncated) as error:
                    reason = _reason(error)
                    if failures == len(_PAUSES_S):
                        raise MillError(
                            f"cannot read the shard {url}: it {reason}, also when tried again "
                            f"{failures} times; check the URL and the network"
                        ) from None
                    log.warning("the shard %s %s; reading on from byte %d", url, reason, offset)
                    time.sleep(_PAUSES_S[failures])
                    failures += 1
                except TarError as error:
                    raise MillError(f"the shard {url} {error}") from None
            offset = position = 0


class _Piece(NamedTuple):
    """A sample as it was read; it lies at start..stop of its shard."""

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


_USED = _Piece(0, 0, 0, 0, b"", None, None)  # lets go of what has been given out


def _read(url: str, turn: int, offset: int, position: int) -> Iterator[_Piece]:
    """The samples of a shard from a byte on at which one begins."""
    stream = _open(url)
    try:
        reader = _from(stream, offset)
        imageless = 0
        for start, stop, parts in _groups(url, reader):
            piece = _piece(url, parts)
            if piece is None:
                imageless += 1
                continue
            yield _Piece(turn, start, stop, position, *piece)
            position += 1
        if imageless:
            log.warning("%d samples without an image are left out of %s", imageless, url)
        reader.skip(sys.maxsize)  # to the end, so that a command's exit tells whether all went well
        stream.close()
    except Truncated:
        stream.close()  # an OSError of the command that failed says more
        raise
    finally:
        with contextlib.suppress(OSError):
            stream.close()


def _groups(
    url: str, reader: StreamReader
) -> Iterator[tuple[int, int, dict[str, tuple[Member, bytes]]]]:
    """(first byte, byte behind, members by extension) of each run of members with one key."""
    key, start = b"", 0
    parts: dict[str, tuple[Member, bytes]] = {}
    for member in tar.members(reader):
        named = shard_samples.split_name(member.name)
        if named is None:
            continue
        if named[0] != key and parts:
            yield start, member.start, parts
            parts = {}
        if not parts:
            key, start = named[0], member.start
        if named[1] in parts:
            shown = os.fsdecode(member.name)
            raise MillError(f"the member {shown!r} of the shard {url} is there twice")
        content = reader.take(member.size)
        if len(content) < member.size:
            raise Truncated(f"is truncated: it ends at byte {reader.position}")
        parts[named[1]] = member, content
    if parts:
        ends = [member.offset + member.size for member, _ in parts.values()]
        yield start, max(end + -end % tar.BLOCK for end in ends), parts


def _piece(
    url: str, parts: dict[str, tuple[Member, bytes]]
) -> tuple[bytes, int | None, bytes | None] | None:
    """The image, its label and its mask; None where there is no image."""
    member = next(iter(parts.values()))[0]
    try:
        image = shard_samples.image_member(parts)
        labels = []
        for extension in (shard_samples.CLASS, shard_samples.JSON):
            if extension in parts:
                member, content = parts[extension]
                labels.append(shard_samples.parse_label(extension, content))
    except SampleError as error:
        shown = os.fsdecode(member.name)
        raise MillError(f"the member {shown!r} of the shard {url} {error}") from None
    if image is None:
        return None
    label = next((label for label in labels if label is not None), None)
    mask = parts.get(shard_samples.MASK)
    return image[1], label, mask[1] if mask else None


# ---------------------------------------------------------------------------------------- opening


def _open(url: str) -> Any:
    from webdataset.gopen import gopen, gopen_schemes

    if url.startswith("s3://") and "s3" not in gopen_schemes:
        url = f"pipe:aws s3 cp {shlex.quote(url)} -"
    return gopen(url, "rb")


def _from(stream: Any, offset: int) -> StreamReader:
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
