"""Samples of one shard, read sequentially: runs of adjacent members with the same key."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator, Iterator
from typing import NamedTuple

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.shards import samples as shard_samples
from patchmill.loaders.sources.shards import tar
from patchmill.loaders.sources.shards.samples import SampleError
from patchmill.loaders.sources.shards.tar import Member, StreamReader, Truncated
from patchmill.loaders.sources.stream.opening import Shard

log = logging.getLogger("patchmill")


class Record(NamedTuple):
    """A sample, read from the bytes start..stop of its shard."""

    turn: int
    start: int
    stop: int
    position: int
    data: bytes
    label: int | None
    mask: bytes | None

    def id(self, shards: list[int]) -> int:
        return shards[self.turn] << 32 | self.position


def read_shard(shard: Shard, name: str, turn: int, offset: int, position: int) -> Generator[Record]:
    """The samples of a shard from a byte offset at which one begins; `name` is for messages.

    Raises TarError for damage, and the StreamFaults of the transport.
    """
    start, chunks = shard.open(offset)
    try:
        reader = StreamReader(_Chunks(chunks), start)  # type: ignore[arg-type]
        if reader.skip(offset - start) < offset - start:
            raise Truncated(f"is truncated: it ends before byte {offset}")
        imageless = 0
        for start, stop, members in _group_members(name, reader):
            content = _parse_sample(name, members)
            if content is None:
                imageless += 1
                continue
            yield Record(turn, start, stop, position, *content)
            position += 1
        if imageless:
            log.warning("%d samples without an image are skipped in %s", imageless, name)
        if not shard.has_known_end:
            reader.skip(sys.maxsize)  # to the end, where a failed command is reported
    finally:
        chunks.close()


class _Chunks:
    """File-like reader of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def read(self, count: int) -> bytes:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        part, self._rest = self._rest[:count], self._rest[count:]
        return bytes(part)


def _group_members(
    name: str, reader: StreamReader
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
                f"the member {shown!r} of the shard {name} occurs twice: "
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
    name: str, members: dict[str, tuple[Member, bytes]]
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
        raise MillError(f"the member {shown!r} of the shard {name} {error}") from None
    if image is None:
        return None
    label = next((label for label in labels if label is not None), None)
    mask = members.get(shard_samples.MASK)
    return image[1], label, mask[1] if mask else None
