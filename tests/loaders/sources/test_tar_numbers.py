"""Numbers in tars: those that Python's tarfile reads, too, and an error's sentence for others."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.sources.shards import tar
from patchmill.loaders.sources.shards.tar import TarError

CONTENT = b"x" * 40


def archive(field: bytes | None = None, **records: bytes) -> bytes:
    """A tar of one file, with these bytes as its size, or these PAX records in front of it."""
    info = tarfile.TarInfo("a.jpg")
    info.size = len(CONTENT)
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    if field is not None:
        header[124:136] = field.ljust(12, b"\0")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + CONTENT.ljust(512, b"\0") + bytes(1024)
    if not records:
        return data
    texts = b"".join(record(key.encode(), value) for key, value in records.items())
    extended = tarfile.TarInfo("x")
    extended.type, extended.size = tarfile.XHDTYPE, len(texts)
    padded = texts + bytes(-len(texts) % 512)
    return extended.tobuf(tarfile.USTAR_FORMAT) + padded + data


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    total = length + len(str(length))
    total += len(str(total)) - len(str(length))
    return b"%d %b=%b\n" % (total, key, value)


def sizes(data: bytes) -> list[int]:
    return [member.size for member in tar.members(tar.StreamReader(io.BytesIO(data)))]


def sizes_by_python(data: bytes) -> list[int] | None:
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as opened:
            return [member.size for member in opened if member.isreg()]
    except (tarfile.TarError, ValueError, OverflowError):
        return None


@pytest.mark.parametrize(
    "field",
    [
        *(b"00000000050", b"50", b" 50 ", b"50 ", b"         50\0", b"00000000050 "),
        b"\x80" + bytes(10) + b"\x28",
    ],
)
def test_forms_of_a_size(field: bytes) -> None:
    assert sizes(archive(field)) == sizes_by_python(archive(field)) == [40]


@pytest.mark.parametrize(
    "field",
    [b"5_0", b"+50", b"-50", b"0o50", b"5e1", b"58", b"\t50", b"\xff" * 12, b"\x81" + b"\0" * 11],
)
def test_a_size_of_another_form_is_an_error(field: bytes) -> None:
    with pytest.raises(TarError, match="has no size"):
        sizes(archive(field))


@pytest.mark.parametrize("value", [b"40", b"040", b"0" * 30 + b"40"])
def test_sizes_in_pax_records(value: bytes) -> None:
    data = archive(b"7", size=value)
    assert sizes(data) == sizes_by_python(data) == [40]


@pytest.mark.parametrize(
    "value",
    [b"4_0", b"+40", b"-40", b" 40", b"", b"0x28", "٤".encode(), b"9" * 5000, b"4" * 25],
    ids=lambda value: value[:9].hex(),
)
def test_sizes_of_another_form_in_pax_records_are_errors(value: bytes) -> None:
    with pytest.raises(TarError, match=r"has no size|is truncated"):
        sizes(archive(b"7", size=value))


numbers = st.one_of(
    st.binary(max_size=12),
    st.text("01234567", max_size=11).map(str.encode),
    st.text("0123456789 _+-ox\0\t", max_size=12).map(str.encode),
)


@settings(deadline=None)
@given(numbers)
def test_a_size_is_tarfiles_or_an_error(field: bytes) -> None:
    data = archive(field)
    try:
        found = sizes(data)
    except TarError as error:
        assert "\n" not in str(error)
        return
    assert found == sizes_by_python(data)


@settings(deadline=None)
@given(st.binary(max_size=20), st.binary(max_size=5))
def test_a_pax_size_is_tarfiles_or_an_error(value: bytes, beside: bytes) -> None:
    data = archive(b"7", size=value, comment=beside)
    try:
        found = sizes(data)
    except TarError as error:
        assert "\n" not in str(error)
        return
    assert found == sizes_by_python(data)


@pytest.mark.parametrize("offset", [2**63 - 10, 2**64])
def test_an_offset_beyond_all_files_cannot_be_read(tmp_path: Path, offset: int) -> None:
    """An index may name one under checksums that fit."""
    (tmp_path / "x.tar").write_bytes(archive())
    with (
        open(tmp_path / "x.tar", "rb") as file,
        pytest.raises(OSError, match="no file is that long"),
    ):
        tar.read_at(file.fileno(), 40, offset)
