"""The source that holds a stream's samples while their batches are made."""

import pytest

from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.loaders.sources.stream.stream import Stream, StreamPosition, StreamSample

pytest.importorskip("webdataset")


def sample(id: int) -> StreamSample:
    return StreamSample(id, b"", None, None, 0, 0, StreamPosition())


def test_a_sample_of_two_batches_is_replaced_from_the_one_that_is_made() -> None:
    """A sample may be in the last batch of one epoch and the first of the next."""
    source = StreamSource(Stream("file:///none.tar"))
    first = source.hold([sample(1), sample(2), sample(3)], 0)
    second = source.hold([sample(1), sample(4), sample(5)], 1 << 24)
    for attempt in range(20):
        assert source.substitute(0, 0, 1, attempt) in first
        assert source.substitute(0, 1 << 24, 1, attempt) in second
    source.release(first)
    assert {source.substitute(0, 1 << 24, 1, attempt) for attempt in range(20)} == {1, 4, 5}
    source.release(second)
    assert not source._held
