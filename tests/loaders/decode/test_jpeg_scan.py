"""The compiled look at headers decides as `plain_jpeg` and DALI's parser do, on any bytes."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_dali_jpegs import BAD, PLAIN
from helpers_odd_images import jpeg, odd, with_size
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.decode import jpeg_scan
from patchmill.loaders.decode.bad_image import MAX_PIXELS
from patchmill.loaders.decode.jpeg_header import plain_jpeg
from patchmill.loaders.decode.jpeg_scan import OTHER, SURE

SMALL = 70_000  # bytes
JPEGS = [*(one.tobytes() for one in (*PLAIN.values(), *BAD.values())), *odd().values()]
JPEGS += [
    with_size(jpeg(6, subsampling=s), 1000 + 400 * s, 1000) for s in (0, 1, 2)
]  # about to lie
JPEGS = [data for data in JPEGS if 4 < len(data) < SMALL]
HEADER = 700  # bytes in which changes are most likely to matter

MARKERS = st.sampled_from([0, 1, *range(0xC0, 0xD0), *range(0xD7, 0xE3), 0xEE, 0xFE, 0xFF])
SEGMENTS = st.sampled_from(
    [
        b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\0",
        b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\1",
        b"\xff\xe1\x00\x10Exif\0\0II*\0\x08\0\0\0",
        b"\xff\xe1\x00\x08Exif\0\0",
        b"\xff\xe1\x00\x04ab",
        b"\xff\xff\xff",
        b"\xff\xd9",
    ]
)
CHANGES = st.one_of(
    st.tuples(st.just("byte"), st.integers(0, HEADER), st.integers(0, 255)),
    st.tuples(st.just("marker"), st.integers(0, 30), MARKERS),
    st.tuples(st.just("length"), st.integers(0, 30), st.integers(0, 40)),
    st.tuples(st.just("segment"), st.integers(0, 30), SEGMENTS),
    st.tuples(st.just("cut"), st.integers(0, HEADER), st.integers(1, 30)),
    st.tuples(st.just("end"), st.integers(0, HEADER), st.just(b"\xff\xd9")),
)


def changed(data: bytes, changes: list[tuple[str, int, int | bytes]]) -> bytes:
    for kind, place, what in changes:
        markers = [i for i in range(min(len(data) - 4, HEADER)) if data[i] == 0xFF and data[i + 1]]
        at = min(place, len(data))
        if kind in ("marker", "length", "segment"):
            at = markers[place % len(markers)] if markers else 0
        if kind == "byte":
            data = data[:at] + bytes([what]) + data[at + 1 :]
        elif kind == "marker":
            data = data[: at + 1] + bytes([what]) + data[at + 2 :]
        elif kind == "length":
            data = data[: at + 2] + what.to_bytes(2, "big") + data[at + 4 :]
        elif kind == "segment":
            data = data[:at] + what + data[at:]
        elif kind == "cut":
            data = data[:at] + data[at + what :]
        else:
            data = data[:at] + what
    return data


MUTANTS = st.builds(changed, st.sampled_from(JPEGS), st.lists(CHANGES, max_size=3))


def scan(files: list[bytes], known: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """Kinds, hashes, ids and shapes of these files, concatenated in memory."""
    count, ends = len(files), np.cumsum([0, *map(len, files)])
    memory = np.frombuffer(b"".join(files) + b"\xff\xd9", np.uint8).copy()
    kinds, hashes = np.full(count, 9, np.uint8), np.full(count, 9, np.uint32)
    requested, ids = np.arange(count) * 3, np.full(count, -1)
    shapes = np.zeros((count, 2), np.int32)
    known = np.zeros(0, np.uint32) if known is None else known
    spans = np.stack([ends[:-1], ends[1:]], 1)
    slots = np.arange(count)
    sure = jpeg_scan.scan(
        memory, spans, slots, requested, known, kinds, hashes, ids, shapes, MAX_PIXELS
    )
    assert sure == np.count_nonzero(kinds == SURE)
    return kinds, hashes, ids, shapes


@settings(max_examples=80, deadline=None)
@given(st.lists(MUTANTS, min_size=1, max_size=8))
def test_any_bytes_are_plain_to_it_if_they_are_plain(files: list[bytes]) -> None:
    kinds, _, ids, shapes = scan(files)
    for i, data in enumerate(files):
        expected = plain_jpeg(data)
        found = None if kinds[i] == OTHER else tuple(shapes[i].tolist())
        assert found == expected
        assert ids[i] == (-1 if expected is None else 3 * i)


@settings(max_examples=80, deadline=None)
@given(st.lists(MUTANTS, min_size=1, max_size=8))
def test_dalis_parser_reads_all_sure_headers(files: list[bytes]) -> None:
    """A header that it cannot read would kill the process."""
    pytest.importorskip("nvidia.dali", reason="needs DALI")
    from patchmill.loaders.pipelines.dali.decoder import has_decodable_header

    kinds, *_ = scan(files)
    for data, kind in zip(files, kinds, strict=True):
        assert kind != SURE or has_decodable_header(np.frombuffer(data, np.uint8))


def test_usual_jpegs_are_sure_and_others_once_they_are_known() -> None:
    """EXIF data may confuse the parser."""
    files = [jpeg(1), jpeg(2, progressive=True), jpeg(3, mode="L"), odd()["exif"], odd()["no end"]]
    kinds, hashes, *_ = scan(files)
    assert kinds.tolist() == [jpeg_scan.SURE] * 3 + [jpeg_scan.PLAIN, jpeg_scan.OTHER]
    assert (hashes > 0).tolist() == [False, False, False, True, False]
    known = np.zeros(3 * len(files), np.uint32)
    known[9] = hashes[3]
    assert scan(files, known)[0].tolist()[3] == jpeg_scan.SURE
    other = files[3][:40] + bytes([files[3][40] ^ 1]) + files[3][41:]
    assert scan([*files[:3], other], known)[0].tolist()[3] != jpeg_scan.SURE


def test_a_span_below_zero_is_not_an_image() -> None:
    spans, one = np.array([[-1, -1]]), np.zeros(1, np.int64)
    kinds = np.full(1, 9, np.uint8)
    memory = np.frombuffer(jpeg(1), np.uint8).copy()
    shapes = np.zeros((1, 2), np.int32)
    known = hashes = np.zeros(1, np.uint32)
    assert jpeg_scan.scan(memory, spans, one, one, known, kinds, hashes, one, shapes, 9) == 0
    assert kinds.tolist() == [OTHER]
