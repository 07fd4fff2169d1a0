"""A stream's samples while their batches are made."""

import pytest

from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.loaders.sources.stream.stream import Stream, StreamPosition, StreamSample

pytest.importorskip("webdataset")


def sample(id: int) -> StreamSample:
    return StreamSample(id, b"", None, None, 0, 0, StreamPosition())


def test_a_sample_of_two_batches_is_replaced_from_the_one_that_is_made() -> None:
    """Where a round through the shards meets the next, whichever is made first."""
    flowing = StreamSource(Stream("file:///none.tar"))
    first = flowing.hold([sample(1), sample(2), sample(3)], 0)
    second = flowing.hold([sample(1), sample(4), sample(5)], 1 << 24)
    for attempt in range(20):
        assert flowing.substitute(0, 0, 1, attempt) in first
        assert flowing.substitute(0, 1 << 24, 1, attempt) in second
    flowing.release(first)
    assert {flowing.substitute(0, 1 << 24, 1, attempt) for attempt in range(20)} == {1, 4, 5}
    flowing.release(second)
    assert not flowing._held
