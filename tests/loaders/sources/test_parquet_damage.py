"""Damaged Parquet files end in one sentence: no process that dies, no loop, no gigabytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers_parquet import noise, write_images
from helpers_thrift import I32, I64, LIST, STRUCT, TRUE, Struct, read_footer, with_footer, write

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.parquet import places
from patchmill.loaders.sources.parquet.footer import BYTE_ARRAY, Chunk, Group
from patchmill.loaders.sources.parquet.source import Parquet

pytest.importorskip("pyarrow", reason="pyarrow is not installed")

OPEN = """
import sys
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.parquet.source import Parquet
for path in sys.argv[1:]:
    try:
        source = Parquet(path)
        print("rows", len(source), len(source.read(0)), flush=True)
    except MillError as error:
        print("error", error, flush=True)
"""
_BEYOND = 1 << 40


def group(footer: Struct, number: int = 0) -> Struct:
    return footer[4][1][1][number]


def chunk(footer: Struct, number: int = 0, column: int = 0) -> Struct:
    return group(footer, number)[1][1][1][column][3][1]


def test_statistics_that_do_not_fit_the_schema_end_no_process(tmp_path: Path):
    whole = write_images(tmp_path / "whole.parquet", noise(5, 90), [0, 1, 0, 1, 0])
    footer = read_footer(whole)
    levels = chunk(footer)[16][1][3][1]  # the size statistics' histogram of definition levels
    assert len(levels[1]) == 3
    levels[1].pop()
    changed = tmp_path / "changed.parquet"
    changed.write_bytes(with_footer(whole, write(STRUCT, footer)))
    command = [sys.executable, "-c", OPEN, str(whole), str(changed)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-500:]
    first, second = ran.stdout.splitlines()
    assert first.startswith("rows 5") and second.startswith(("rows 5", "error"))


DAMAGES: dict[str, Callable[[Struct], object]] = {
    "negative size or place": lambda f: chunk(f).update({9: (I64, -5)}),
    "negative size": lambda f: chunk(f).update({7: (I64, -1)}),
    "overlaps another": lambda f: chunk(f).update({9: (I64, 5), 11: (I64, 1)}),
    "overlaps": lambda f: chunk(f, 1).update({9: chunk(f)[9], 11: chunk(f)[11]}),
    "extends into its footer": lambda f: chunk(f, 1, 2).update({7: (I64, _BEYOND)}),
    "overlaps another ": lambda f: chunk(f).update({7: (I64, 1 << 62)}),
    "lacks values for some rows": lambda f: chunk(f, 1, 2).update({5: (I64, 4)}),
    "more rows": lambda f: group(f).update({3: (I64, _BEYOND)}),
    "no rows": lambda f: group(f).update({3: (I64, -1)}),
    "no field 5": lambda f: chunk(f).pop(5),
    "no field 7": lambda f: chunk(f).update({7: (STRUCT, {})}),
    "no field 9": lambda f: chunk(f).update({9: (LIST, (I64, [7]))}),
    "no row groups": lambda f: f.update({4: (STRUCT, {})}),
    "no rows or columns": lambda f: f.update({4: (LIST, (STRUCT, [{}]))}),
    "not have the columns": lambda f: group(f)[1][1][1].pop(),
    "cut off": lambda f: f.update({4: (LIST, b"\xfc\xff\xff\xff\xff\x07")}),
    "cut off ": lambda f: f.update({9: (LIST, b"\xf1\xff\xff\xff\xff\x07")}),
    "more than 32 bits": lambda f: f.update({9: (LIST, b"\xf1" + b"\xff" * 40)}),
    "more than 64 bits": lambda f: f.update({3: (I64, b"\x80" * 500_000)}),
    "nested too deeply": lambda f: f.update({9: (STRUCT, b"\x1c" * 5000)}),
    "lists are nested": lambda f: f.update({9: (LIST, b"\x19" * 5000)}),
}


@pytest.mark.parametrize("problem", DAMAGES)
def test_damaged_footers_are_one_sentence(tmp_path: Path, problem: str):
    whole = write_images(tmp_path / "x.parquet", noise(6, 90), [0, 1] * 3, row_group_size=3)
    footer = read_footer(whole)
    assert with_footer(whole, write(STRUCT, footer)) and len(Parquet(whole)) == 6
    DAMAGES[problem](footer)
    whole.write_bytes(with_footer(whole, write(STRUCT, footer)))
    with pytest.raises(MillError, match=problem.strip()) as caught:
        Parquet(whole)
    assert "\n" not in str(caught.value) and "x.parquet" in str(caught.value)


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_file_without_rows_is_not_damaged(tmp_path: Path, dictionary: bool):
    path = write_images(tmp_path / "x.parquet", [], [], use_dictionary=dictionary)
    assert len(Parquet(path)) == 0


def test_two_fields_of_one_name_are_a_bad_sample(tmp_path: Path):
    path = write_images(tmp_path / "x.parquet", noise(2, 90), compression="lz4")
    footer = read_footer(path)
    schema = footer[2][1][1]
    assert schema[3][4][1] == b"path"
    schema[3] = schema[2]
    path.write_bytes(with_footer(path, write(STRUCT, footer)))
    with pytest.raises(OSError, match=r"the row group must have one column image\.bytes"):
        Parquet(path).read(0)


def test_a_damaged_list_of_paths_is_one_sentence(tmp_path: Path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "list.parquet"
    parquet.write_table(pyarrow.table({"path": ["a.jpg", "b.jpg"]}), path)
    data = bytearray(path.read_bytes())
    data[4:24] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(MillError, match=r"cannot read the list .*list\.parquet") as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def header(size: int, stored: int, dictionary: bool, values: int) -> bytes:
    about = {1: (I32, values), 2: (I32, 0), 3: (I32, 3), 4: (I32, 3)}
    number = 7 if dictionary else 5
    kind = 2 if dictionary else 0
    return write(
        STRUCT, {1: (I32, kind), 2: (I32, size), 3: (I32, stored), number: (STRUCT, about)}
    )


@pytest.mark.parametrize(
    "pages",
    [
        header(2**31 - 1, 0, True, 2**29 - 1),
        header(2**31 - 1, 0, False, 2**29 - 1),
        header(0, 0, False, -1),
        header(-1, 0, False, 3),
        header(10, 10, False, 7) + b"\0" * 10,
        (header(8, 8, False, 2) + b"\0" * 8) * 3,
        write(STRUCT, {9: (LIST, b"\xf1" + b"\xff" * 8 + b"\x01")}),
        write(STRUCT, {1: (I32, 0), 2: (TRUE, None)}),
    ],
)
def test_damaged_pages_are_left_to_pyarrow_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: bytes
):
    (tmp_path / "pages").write_bytes(pages + bytes(50))
    reads = []
    pread = places.os.pread
    monkeypatch.setattr("os.pread", lambda *words: reads.append(1) or pread(*words))
    group = Group(4, [Chunk(BYTE_ARRAY, 0, 4, 0, len(pages))])
    with open(tmp_path / "pages", "rb") as file:
        found = places.locate(file.fileno(), 6, group, 0, 0)
    assert found.chunks == [(6, 0, 0, places.ROWS)] and sum(map(len, found.rows)) == 4
    assert len(reads) < 20
