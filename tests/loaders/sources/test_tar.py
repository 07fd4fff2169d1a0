"""The tar reader against Python's tarfile, and on what tarfile never complains about."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.sources.shards import tar
from patchmill.loaders.sources.shards.tar import FileReader, StreamReader, TarError, Truncated

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
ODD_KINDS = {
    "link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "folder": tarfile.DIRTYPE,
    "device": tarfile.CHRTYPE,
    "pipe": tarfile.FIFOTYPE,
    "contiguous": tarfile.CONTTYPE,
    "old file": tarfile.AREGTYPE,
}


def build(files: list[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as file:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return out.getvalue()


def both_ways(data: bytes, path: Path) -> list[tuple[bytes, bytes]]:
    """(name, content) of each member, read from a file and from a stream, which must agree."""
    path.write_bytes(data)
    found = []
    with open(path, "rb") as file:
        reader = FileReader(file.fileno())
        for member in tar.members(reader):
            assert data[member.start + 257 : member.start + 262] in (b"ustar", bytes(5))
            found.append((member, reader.at(member.offset, member.size)))
    stream = StreamReader(io.BytesIO(data))
    streamed = [(member, stream.take(member.size)) for member in tar.members(stream)]
    assert streamed == found
    return [(member.name, content) for member, content in found]


def by_tarfile(data: bytes) -> list[tuple[bytes, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        return [
            (os.fsencode(info.name), opened.read())
            for info in file
            if info.isreg() and (opened := file.extractfile(info))
        ]


letters = st.text("ab.é/ \n", min_size=1, max_size=12)
names = st.one_of(
    letters,
    st.builds(lambda folder, base: f"{folder}/{base}", st.text("d", max_size=150), letters),
    st.integers(90, 300).map(lambda length: "n" * length + ".jpg"),
).filter(lambda name: not name.endswith("/"))


@settings(deadline=None)
@given(
    files=st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=8),
    kind=st.sampled_from(["gnu", "pax"]),
)
def test_agrees_with_tarfile(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]], kind: str
) -> None:
    data = build(files, FORMATS[kind])
    assert both_ways(data, tmp_path_factory.mktemp("tar") / "x.tar") == by_tarfile(data)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*ODD_KINDS, "file"]), st.binary(max_size=600))))
def test_members_that_are_not_regular_files_are_skipped(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes]]
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for number, (kind, content) in enumerate(entries):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.type = ODD_KINDS.get(kind, tarfile.REGTYPE)
            info.linkname = "elsewhere"
            if kind in ("file", "contiguous", "old file"):
                info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    data = out.getvalue()
    found = both_ways(data, tmp_path_factory.mktemp("tar") / "x.tar")
    assert found == by_tarfile(data)
    assert len(found) == sum(kind in ("file", "contiguous", "old file") for kind, _ in entries)


def test_long_paths_in_ustar(tmp_path: Path) -> None:
    name = "/".join(["folder" * 5] * 4) + "/photo.jpg"
    data = build([(name, b"x")])
    assert data[345:351] == b"folder"  # the prefix is in use
    assert both_ways(data, tmp_path / "x.tar") == [(name.encode(), b"x")]


def test_pax_records_override_path_and_size(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("short.jpg")
        info.pax_headers = {"path": "real/näme.jpg", "size": "700"}
        file.addfile(info)
    data = out.getvalue()
    header = data.index(b"short.jpg")
    data = data[: header + 512] + b"c" * 700 + bytes(324 + 1024)
    assert both_ways(data, tmp_path / "x.tar") == [("real/näme.jpg".encode(), b"c" * 700)]


def test_sizes_in_base_256(tmp_path: Path) -> None:
    data = bytearray(build([("a.jpg", b"x" * 600), ("b.jpg", b"y")]))
    data[124:136] = b"\x80" + (600).to_bytes(11, "big")
    _sum_up(data)
    assert both_ways(bytes(data), tmp_path / "x.tar") == [(b"a.jpg", b"x" * 600), (b"b.jpg", b"y")]


def test_header_checksums_of_signed_bytes(tmp_path: Path) -> None:
    data = bytearray(build([("é.jpg", b"x")], tarfile.GNU_FORMAT))
    signed = 256 + sum(b - 256 * (b > 127) for b in [*data[:148], *data[156:512]])
    assert b"%06o\0 " % signed != data[148:156]
    data[148:156] = b"%06o\0 " % signed
    assert both_ways(bytes(data), tmp_path / "x.tar") == [("é.jpg".encode(), b"x")]


def test_old_sparse_files_are_skipped(tmp_path: Path) -> None:
    data = bytearray(build([("a.jpg", b"x" * 512), ("b.jpg", b"y")]))
    data[156:157] = b"S"
    data[482] = 1  # one more block of the map follows
    _sum_up(data)
    data[512:512] = bytes(512)
    assert both_ways(bytes(data), tmp_path / "x.tar") == [(b"b.jpg", b"y")]


def test_new_sparse_files_are_skipped(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        file.addfile(info)
        file.addfile(tarfile.TarInfo("b.jpg"))
    assert both_ways(out.getvalue(), tmp_path / "x.tar") == [(b"b.jpg", b"")]


def test_a_name_that_begins_as_compressed_data_does(tmp_path: Path) -> None:
    data = build([("BZh.jpg", b"x")])
    assert both_ways(data, tmp_path / "x.tar") == [(b"BZh.jpg", b"x")]


def test_empty_tars_and_one_block_of_zeros_as_an_end(tmp_path: Path) -> None:
    assert both_ways(build([]), tmp_path / "x.tar") == []
    data = build([("a.jpg", b"x")])[: 3 * 512]
    assert both_ways(data, tmp_path / "x.tar") == [(b"a.jpg", b"x")]


@settings(deadline=None)
@given(st.integers(1, 512 * 8 - 1))
def test_truncation_is_noticed_at_every_length(length: int) -> None:
    files = [("a" * 120 + ".jpg", b"x" * 700), ("b.jpg", b"y" * 100)]
    whole = build(files, tarfile.GNU_FORMAT)
    assert not any(whole[512 * 7 :]) and any(whole[512 * 6 : 512 * 7])
    with pytest.raises(Truncated, match="truncated"):
        list(tar.members(StreamReader(io.BytesIO(whole[:length]))))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b" + bytes(600), r"compressed with gzip: decompress it .* or stream"),
        (b"BZh9" + bytes(600), "compressed with bzip2"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "compressed with zstd"),
        (b"some text " * 100, "not a tar"),
        (build([("a.jpg", b"x")])[:1024] + b"junk" * 500, "damaged: .* byte 1024"),
    ],
)
def test_files_that_are_not_tars(data: bytes, complaint: str) -> None:
    with pytest.raises(TarError, match=complaint):
        list(tar.members(StreamReader(io.BytesIO(data))))


@pytest.mark.parametrize("size", [b"-0000000001\0", b"\xff" * 12, b"0000000 8x\0\0"])
def test_negative_sizes_are_refused(size: bytes) -> None:
    data = bytearray(build([("a.jpg", b"x")]))
    data[124:136] = size
    _sum_up(data)
    with pytest.raises(TarError, match="byte 0 has no size"):
        list(tar.members(StreamReader(io.BytesIO(data))))


@pytest.mark.parametrize(
    "records", [b"30 path=short\n", b"0 path=x\n", b"9 nothing", b"x path=y\n", b"99999 path=x\n"]
)
def test_damaged_pax_records(records: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    data = info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0") + build([("a.jpg", b"x")])
    with pytest.raises(TarError, match="extended header at byte 0"):
        list(tar.members(StreamReader(io.BytesIO(data))))


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 2047))
def test_random_bytes_raise_tar_errors_only(junk: bytes, at: int) -> None:
    data = build([("a" * 120 + ".jpg", b"x" * 30), ("b.jpg", b"y")], tarfile.PAX_FORMAT)
    damaged = data[:at] + junk + data[at + len(junk) :]
    try:
        assert len(list(tar.members(StreamReader(io.BytesIO(damaged))))) <= 2
    except TarError as error:
        assert "\n" not in str(error)


def _sum_up(data: bytearray) -> None:
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
