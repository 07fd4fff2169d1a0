"""Streamed WebDataset shards: from object stores, web servers or the output of a command.

URLs are `https://host/data-{000000..000146}.tar`, `s3://bucket/data-*.tar` and other schemes of
fsspec's, `file:///...`, and `pipe:COMMAND`, which runs the command in a shell: only use such URLs
from people you trust. `opening` chooses what reads them.

A failed read resumes after the last complete sample, if a retry can help.

Each epoch shuffles the shards and distributes them to the ranks; a rank reads its shards in turn,
ahead of use, and shuffles its samples in windows. The samples of a window and their order depend
only on the seed, the epoch, the rank and the number of ranks. `shards.samples` defines which
members make a sample; here they must be adjacent in the tar.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.threads import read_ahead
from patchmill.loaders.order import permutation
from patchmill.loaders.sources.reopened import Reopened
from patchmill.loaders.sources.shards.tar import TarError, Truncated
from patchmill.loaders.sources.stream import opening, patience
from patchmill.loaders.sources.stream.faults import StreamFault
from patchmill.loaders.sources.stream.opening import open_shard
from patchmill.loaders.sources.stream.patience import Halt
from patchmill.loaders.sources.stream.records import Record, read_shard
from patchmill.loaders.sources.stream.redact import redact

log = logging.getLogger("patchmill")

_WINDOW_SEED_STRIDE = 0x9E3779B97F4A7C15  # odd, so that different windows get different seeds


@dataclass(frozen=True)
class StreamPosition:
    """A position in a rank's stream: the start of the current window, and the samples used of it.

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


class Stream(Reopened):
    """A shard set that can only be read sequentially.

    timeout_s: seconds without a byte after which a connection counts as broken (30)
    retries: consecutive retries without a sample before a fault is final (5)
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        seed: int = 0,
        window: int = 1000,
        timeout_s: float | None = None,
        retries: int | None = None,
    ) -> None:
        self.seed, self.window = seed, window
        self.patience = patience.choose(timeout_s, retries)
        self.urls = opening.expand(urls, self.patience)
        names = [redact(url) for url in self.urls]  # a new signature does not mean other data
        self.name = names[0] + (f" and {len(names) - 1} more" if names[1:] else "")
        self.fingerprint = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

    def shards(self, epoch: int, rank: int, world_size: int) -> np.ndarray:
        """Numbers of the shards that a rank reads in an epoch, in reading order."""
        if world_size > len(self.urls):
            raise MillError(
                f"{len(self.urls)} streamed shards cannot be distributed to {world_size} ranks: "
                "make more shards, or download them and read them from a disk"
            )
        return permutation.Order(len(self.urls), self.seed).ids(epoch, 0, len(self.urls))[
            rank::world_size
        ]

    def where(self, sample: StreamSample) -> str:
        """Location of a sample, for the ledger: URL and byte offset."""
        return f"{redact(self.urls[sample.shard])}: at byte {sample.offset}"

    def samples(
        self, epoch: int, rank: int = 0, world_size: int = 1, start: StreamPosition | None = None
    ) -> Iterator[StreamSample]:
        """One rank's samples of an epoch.

        `start` resumes from the `after` of a sample of the same epoch, rank and number of ranks. It
        rereads that sample's window, and nothing before it if the shard is seekable.
        """
        start = start or StreamPosition()
        shards = self.shards(epoch, rank, world_size).tolist()
        halt = Halt()
        records = read_ahead(self._read_shards(shards, start, halt), self.window, halt.now)
        try:
            yield from self._shuffle_windows(records, shards, epoch, start.taken)
        finally:
            records.close()

    def _shuffle_windows(
        self, records: Iterator[Record], shards: list[int], epoch: int, taken: int
    ) -> Iterator[StreamSample]:
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
                yield _sample(record, shards, after)
            taken = 0

    def _read_shards(
        self, shards: list[int], start: StreamPosition, halt: Halt
    ) -> Generator[Record]:
        offset, position = start.offset, start.position
        for turn in range(start.turn, len(shards)):
            url, failures = self.urls[shards[turn]], 0
            name, shard = redact(url), open_shard(url, self.patience, halt)
            while True:
                try:
                    for record in read_shard(shard, name, turn, offset, position):
                        yield record
                        offset, position, failures = record.stop, record.position + 1, 0
                    break
                except StreamFault as caught:
                    fault = caught
                except Truncated as error:
                    fault = StreamFault(f"it {error}", "check it", retry=not shard.has_known_end)
                except TarError as error:
                    raise MillError(f"the shard {name} {error}") from None
                if not fault.retry or failures >= self.patience.retries:
                    after = f", even after {failures} retries" if fault.retry else ""
                    raise MillError(
                        f"cannot read the shard {name}: {fault}{after}; {fault.remedy}"
                    ) from None
                delay = self.patience.delay_s(failures, fault.wait_s)
                log.warning(
                    "the shard %s: %s; retrying from byte %d in %.3g s", name, fault, offset, delay
                )
                halt.sleep(delay)
                if halt:
                    return
                failures += 1
            offset = position = 0


def _sample(record: Record, shards: list[int], after: StreamPosition) -> StreamSample:
    return StreamSample(
        record.id(shards),
        record.data,
        record.label,
        record.mask,
        shards[record.turn],
        record.start,
        after,
    )


_USED = Record(0, 0, 0, 0, b"", None, None)  # replaces yielded samples to free their memory
