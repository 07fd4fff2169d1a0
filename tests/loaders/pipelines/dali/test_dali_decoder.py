"""DALI's decoder: exact pixels on the CPU, failures that stay with their batch, memory lifetime."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_dali_jpegs import BAD, PLAIN, as_array, jpeg
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("nvidia.dali", reason="needs DALI")

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.pipelines.dali.decoder import (
    BatchDecoder,
    Refused,
    find_undecodable,
    has_decodable_header,
)

CPU = torch.device("cpu")
MOST = 48  # more than DALI parses in one thread


@pytest.fixture
def decoder() -> Iterator[BatchDecoder]:
    made = BatchDecoder(MOST, device=CPU, threads=2, ahead=4)
    yield made
    made.close()


def assert_decoded(decoder: BatchDecoder, encoded: list[np.ndarray]) -> None:
    batch = decoder.take()
    assert len(batch.images.pointers) == len(encoded)
    for i, one in enumerate(encoded):
        np.testing.assert_array_equal(batch.array(i), decode(one.tobytes()))


@pytest.mark.parametrize("name", PLAIN)
def test_pixels_are_those_of_the_exact_decoder(decoder: BatchDecoder, name: str) -> None:
    decoder.submit([PLAIN[name]])
    assert_decoded(decoder, [PLAIN[name]])


@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(
        st.lists(
            st.builds(
                jpeg,
                seed=st.integers(0, 3),
                height=st.integers(1, 70),
                width=st.integers(1, 70),
                mode=st.sampled_from(["RGB", "L"]),
                quality=st.integers(1, 100),
                subsampling=st.integers(0, 2),
                progressive=st.booleans(),
            ),
            min_size=1,
            max_size=12,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_ragged_batches_come_in_order_with_exact_pixels(
    batches: list[list[np.ndarray]],
) -> None:
    decoder = BatchDecoder(12, device=CPU, threads=1, ahead=3)
    for encoded in batches:
        decoder.submit(encoded)
    for encoded in batches:
        assert_decoded(decoder, encoded)


def test_the_table_of_images_points_at_their_pixels(decoder: BatchDecoder) -> None:
    encoded = list(PLAIN.values())
    decoder.submit(encoded)
    batch = decoder.take()
    images = batch.images
    assert images.pointers.dtype == np.int64
    for i, one in enumerate(encoded):
        expected = decode(one.tobytes())
        assert batch.array(i).ctypes.data == images.pointers[i]
        assert tuple(images.shapes[i]) == expected.shape[:2]
        assert images.pitches[i] == 3 * expected.shape[1]


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("place", [0, 20, MOST - 1])
def test_a_bad_image_refuses_its_batch_only(decoder: BatchDecoder, name: str, place: int) -> None:
    good = [jpeg(seed) for seed in range(MOST)]
    bad = list(good)
    bad[place] = BAD[name]
    for encoded in (good, bad, good[:3], good):
        decoder.submit(encoded)
    assert_decoded(decoder, good)
    with pytest.raises(Refused):
        decoder.take()
    assert find_undecodable(bad, CPU, 1) == [place]
    assert_decoded(decoder, good[:3])
    decoder.submit([one for i, one in enumerate(bad) if i != place])
    assert_decoded(decoder, good)
    assert_decoded(decoder, [one for i, one in enumerate(good) if i != place])


def test_find_undecodable_finds_all_and_only_the_bad_ones() -> None:
    encoded = [*PLAIN.values(), *BAD.values()] * 3
    period = len(PLAIN) + len(BAD)
    expected = [i for i in range(len(encoded)) if i % period >= len(PLAIN)]
    assert find_undecodable(encoded, CPU, 2) == expected
    assert find_undecodable(list(PLAIN.values()), CPU, 2) == []


def test_the_reason_is_one_line_without_the_graph(decoder: BatchDecoder) -> None:
    decoder.submit([jpeg(), BAD["truncated"]])
    with pytest.raises(Refused, match=r"^Failed to decode sample #1[ :]*$"):
        decoder.take()


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(PLAIN)[:8]),
    edits=st.lists(st.tuples(st.integers(2, 640), st.integers(0, 255)), min_size=1, max_size=4),
    place=st.integers(0, 23),
)
def test_damaged_headers_never_reach_dali(
    kind: str, edits: list[tuple[int, int]], place: int
) -> None:
    """DALI crashes the process for a header that it cannot read."""
    data = bytearray(PLAIN[kind].tobytes()[:4000])
    for at, byte in edits:
        data[at % len(data)] = byte
    damaged = as_array(bytes(data))
    encoded = [jpeg()] * 24
    encoded[place] = damaged
    decoder = shared_decoder()
    decoder.submit(encoded)
    try:
        assert len(decoder.take().images.pointers) == 24
    except Refused:
        assert find_undecodable(encoded, CPU, 1) == [place]


@functools.cache
def shared_decoder() -> BatchDecoder:
    return BatchDecoder(24, device=CPU, threads=2, ahead=1)


def test_kept_batches_share_no_memory_with_later_ones(decoder: BatchDecoder) -> None:
    batches = [[jpeg(10 * k + i, 50 + k, 60 + i) for i in range(8)] for k in range(5)]
    held = []
    for encoded in batches:
        decoder.submit(encoded)
        held.append(decoder.take())
    for _ in range(10):
        decoder.submit([jpeg(99, 50, 60)] * 8)
        decoder.take()
    for batch, encoded in zip(held, batches, strict=True):
        for i, one in enumerate(encoded):
            np.testing.assert_array_equal(batch.array(i), decode(one.tobytes()))


def test_an_image_keeps_the_memory_of_its_batch_even_after_close() -> None:
    decoder = BatchDecoder(8, device=CPU, threads=1, ahead=2)
    encoded = [jpeg(i) for i in range(8)]
    decoder.submit(encoded)
    image = decoder.take().array(5)
    for _ in range(6):
        decoder.submit(encoded[::-1])
        decoder.take()
    decoder.close()
    np.testing.assert_array_equal(image, decode(encoded[5].tobytes()))


def test_close_drops_batches_in_flight_and_ends_the_threads() -> None:
    before = dali_threads()
    decoder = BatchDecoder(MOST, device=CPU, threads=2, ahead=3)
    for _ in range(3):
        decoder.submit([PLAIN["large"]] * 4)
    assert dali_threads() > before
    decoder.close()
    decoder.close()
    assert dali_threads() == before
    with pytest.raises(ValueError, match="closed"):
        decoder.submit([jpeg()])
    with pytest.raises(ValueError, match="no batch"):
        decoder.take()


def test_arrays_live_as_long_as_dali_may_read_them() -> None:
    """The DALI pipeline may outlive the decoder, as in an exception's traceback."""
    decoder = BatchDecoder(4, device=CPU, threads=1, ahead=2)
    encoded = PLAIN["large"].copy()
    alive, holder = weakref.ref(encoded), decoder._pipeline
    decoder.submit([encoded] * 4)
    del encoded
    decoder.close()
    assert alive() is not None
    del holder
    assert alive() is None


def test_a_kept_refusal_keeps_no_threads() -> None:
    before = dali_threads()
    decoder = BatchDecoder(4, device=CPU, threads=1, ahead=2)
    decoder.submit([BAD["truncated"]])
    with pytest.raises(Refused) as kept:
        decoder.take()
    decoder.close()
    assert dali_threads() == before
    assert kept.value.__context__ is None


def dali_threads() -> int:
    names = [task.read_text() for task in Path("/proc/self/task").glob("*/comm")]
    return sum(name.startswith("[DALI]") for name in names)


def test_decoders_coexist() -> None:
    decoders = [BatchDecoder(4, device=CPU, threads=1, ahead=2) for _ in range(3)]
    batches = [[jpeg(k)] * (k + 1) for k in range(3)]
    for decoder, encoded in zip(decoders, batches, strict=True):
        decoder.submit(encoded)
    for decoder, encoded in reversed(list(zip(decoders, batches, strict=True))):
        assert_decoded(decoder, encoded)


def test_other_threads_go_on_while_a_batch_is_decoded(decoder: BatchDecoder) -> None:
    """`take` releases the GIL."""
    went_on, decoded = threading.Event(), threading.Event()
    turns = []

    def turn() -> None:
        went_on.set()
        while not decoded.is_set():
            turns.append(decoded.wait(0.001))

    thread = threading.Thread(target=turn)
    thread.start()
    went_on.wait()
    decoder.submit([PLAIN["large"]] * MOST)
    before = len(turns)
    decoder.take()
    after = len(turns)
    decoded.set()
    thread.join()
    assert after - before > 3


@pytest.mark.parametrize("count", [0, MOST + 1])
def test_batches_have_a_size(decoder: BatchDecoder, count: int) -> None:
    with pytest.raises(ValueError, match=f"1 to {MOST} images, not {count}"):
        decoder.submit([jpeg()] * count)


def test_no_more_than_ahead_batches_are_in_flight(decoder: BatchDecoder) -> None:
    for _ in range(4):
        decoder.submit([jpeg()])
    with pytest.raises(ValueError, match="4 batches are in flight"):
        decoder.submit([jpeg()])
    for _ in range(4):
        assert_decoded(decoder, [jpeg()])


def test_headers() -> None:
    assert all(map(has_decodable_header, PLAIN.values()))
    assert has_decodable_header(BAD["truncated"])  # found out only by decoding it
    assert not has_decodable_header(BAD["GIF"])


def test_without_dali_it_is_a_mill_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(MillError, match=r"pip install 'patchmill\[dali\]'"):
        BatchDecoder(4, device=CPU, threads=1, ahead=1)


def test_the_interpreter_exits_with_batches_in_flight() -> None:
    assert run("for _ in range(2): decoder.submit([data] * 4)") == ""


def test_a_forked_process_has_no_decoder_but_may_make_one() -> None:
    script = """
decoder.submit([data] * 4)
child = os.fork()
if child == 0:
    try:
        decoder.submit([data])
    except ValueError as error:
        print(error)
    decoder.close()
    del decoder
    fresh = BatchDecoder(4, device=torch.device("cpu"), threads=2, ahead=1)
    fresh.submit([data] * 3)
    print(len(fresh.take().images.pointers), flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1], len(decoder.take().images.pointers))
"""
    assert run(script).splitlines() == ["this decoder is closed", "3", "0 4"]


@pytest.mark.parametrize("step", ["feed_input", "schedule_run", "outputs"])
def test_after_an_interrupt_the_decoder_is_closed(
    decoder: BatchDecoder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The next batch to come out would be unknown."""

    def interrupted(*args: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(decoder._pipeline, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        decoder.submit([jpeg()])
        decoder.take()
    with pytest.raises(ValueError, match="closed"):
        decoder.submit([jpeg()])


def run(script: str) -> str:
    """Output of a script in a new process, with a decoder and data for it."""
    start = f"""
import os
import numpy, torch
from patchmill.loaders.pipelines.dali.decoder import BatchDecoder
decoder = BatchDecoder(4, device=torch.device("cpu"), threads=2, ahead=2)
data = numpy.frombuffer({PLAIN["4:2:0"].tobytes()!r}, numpy.uint8)
"""
    return subprocess.run(
        [sys.executable, "-c", start + script],
        cwd=Path(__file__).parents[4],
        timeout=120,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
