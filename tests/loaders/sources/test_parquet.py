"""Parquet files: every row's bytes, whatever the file's layout; one sentence for each fault."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import helpers_prepare as making
import numpy as np
import pytest
from helpers_parquet import noise, write_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmill import loaders
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.parquet import index as parquet_index
from patchmill.loaders.sources.parquet import places, snappy
from patchmill.loaders.sources.parquet import source as parquet_source
from patchmill.loaders.sources.parquet.source import Parquet

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
HOURS_AGO = 1_600_000_000
COMPRESSIONS = ("none", "snappy", "gzip", "zstd", "lz4")


def read_all(source: Parquet) -> list[bytes | None]:
    """Every row in random order; None for one without an image."""
    rows: dict[int, bytes | None] = {}
    for index in np.random.default_rng(0).permutation(len(source)).tolist():
        try:
            rows[index] = source.read(index)
        except OSError as error:
            assert "no image bytes" in str(error)
            rows[index] = None
    return [rows[index] for index in range(len(source))]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_rows_of_every_layout(tmp_path: Path, compression: str, version: str, dictionary: bool):
    images = [*noise(25, 200_000), None, b"", *noise(3, 300)]
    layout = {"compression": compression, "data_page_version": version, "row_group_size": 11}
    path = write_images(tmp_path / "x.parquet", images, use_dictionary=dictionary, **layout)
    source = open_source(path)
    assert isinstance(source, Parquet) and read_all(source) == images
    codecs = set(source._index["chunk_codecs"].tolist())
    if compression == "none":
        assert codecs == {places.STORED}
    elif compression == "snappy":
        assert codecs <= {places.FRAGMENT, places.STORED}
    elif compression == "lz4":
        assert codecs == {places.ROWS}


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_encodings_that_pyarrow_has_to_decode(tmp_path: Path, encoding: str):
    images = [*noise(8, 5000), None]
    path = tmp_path / "x.parquet"
    write_images(path, images, use_dictionary=False, column_encoding={"image.bytes": encoding})
    source = Parquet(path)
    assert source._index["chunk_codecs"].tolist() == [places.ROWS] and read_all(source) == images


def test_a_compression_that_is_slow_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(parquet_source, "CACHED_BYTES", 20_000)
    for compression in ("snappy", "zstd"):
        images, path = noise(12, 9000), tmp_path / f"{compression}.parquet"
        write_images(path, images, compression=compression, row_group_size=3)
        source = Parquet(path)
        assert read_all(source) == images
        assert source._chunks._used <= 40_000
    assert [record.args for record in caplog.records] == [(str(tmp_path / "zstd.parquet"),)]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    images=st.lists(st.none() | st.binary(max_size=300), min_size=1, max_size=40),
    compression=st.sampled_from(("none", "snappy", "zstd")),
    version=st.sampled_from(("1.0", "2.0")),
    dictionary=st.booleans(),
    group=st.integers(1, 20),
    page=st.integers(1, 2000),
)
def test_any_rows(
    tmp_path: Path,
    images: list[bytes | None],
    compression: str,
    version: str,
    dictionary: bool,
    group: int,
    page: int,
):
    path = tmp_path / "any.parquet"
    write_images(
        path,
        images,
        compression=compression,
        data_page_version=version,
        use_dictionary=dictionary,
        row_group_size=group,
        data_page_size=page,
        write_batch_size=3,
    )
    assert read_all(Parquet(path)) == images


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=3000), st.integers(1, 60)), max_size=8))
def test_fragments_of_snappy_decompress_alone(pieces: list[tuple[bytes, int]]):
    plain = b"".join(piece * count for piece, count in pieces) + noise(1, 4000)[0]
    codec = pyarrow.Codec("snappy")
    data = codec.compress(plain, asbytes=True)
    cuts = snappy.fragments(data, len(plain))
    assert cuts is not None and len(cuts) == -(-len(plain) // snappy.FRAGMENT) + 1
    for i in range(len(cuts) - 1):
        wanted = plain[i * snappy.FRAGMENT : (i + 1) * snappy.FRAGMENT]
        alone = snappy.stream(data[cuts[i] : cuts[i + 1]], len(wanted))
        assert codec.decompress(alone, len(wanted), asbytes=True) == wanted


def test_a_stream_that_reaches_back_is_not_cut():
    literal = b"\xf4\xff\xff" + bytes(65536)  # 64 KiB as they are
    copy = b"\x0e" + (4).to_bytes(2, "little")  # four bytes, from four bytes back: before the cut
    assert snappy.fragments(b"\x84\x80\x04" + literal + copy, 65540) is None
    assert snappy.fragments(b"\x80\x80\x04" + literal, 65536) is not None


# ------------------------------------------------------------------------------------------- labels


def test_classes_are_those_of_the_schema(tmp_path: Path):
    source = open_source(
        write_images(tmp_path / "x.parquet", noise(3, 90), [1, 0, 1], ["cat", "dog"])
    )
    assert source.labels is not None and source.labels.tolist() == [1, 0, 1]
    assert source.classes == ["cat", "dog"]
    assert source.where(2) == f"{tmp_path / 'x.parquet'}, row 2"


def test_unlabelled_rows(tmp_path: Path):
    hidden = open_source(write_images(tmp_path / "a.parquet", noise(3, 90), [-1, -1, -1], ["cat"]))
    assert hidden.labels is None and hidden.classes == []
    assert open_source(write_images(tmp_path / "b.parquet", noise(3, 90))).labels is None


def test_other_columns_by_name(tmp_path: Path):
    from pyarrow import parquet

    table = {"photo": [b"1", b"2"], "thumbnail": [b"3", b"4"], "kind": ["b", "a"], "year": [1, 2]}
    parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet")
    source = Parquet(tmp_path / "x.parquet", image="thumbnail", label="kind")
    assert [source.read(i) for i in range(2)] == [b"3", b"4"]
    assert source.labels is not None
    assert (source.labels.tolist(), source.classes) == ([1, 0], ["a", "b"])
    assert open_source(tmp_path / "x.parquet").read(0) == b"1"
    with pytest.raises(
        MillError, match="no column 'year' of image bytes; it has: photo, thumbnail"
    ):
        Parquet(tmp_path / "x.parquet", image="year")
    with pytest.raises(MillError, match="no column 'colour'; its columns are: photo, thumbnail"):
        Parquet(tmp_path / "x.parquet", label="colour")


# -------------------------------------------------------------------------------------------- files


def test_a_folder_and_a_glob(tmp_path: Path):
    images = noise(10, 500)
    for shard in range(2):
        part = images[5 * shard : 5 * shard + 5]
        write_images(tmp_path / f"data/train-{shard:05d}-of-00002.parquet", part, [shard] * 5)
    (tmp_path / "README.md").touch()
    for name in (tmp_path, tmp_path / "data", f"{tmp_path}/data/train-*.parquet"):
        source = open_source(name)
        assert [source.read(i) for i in range(10)] == images
        assert source.labels is not None and source.labels.tolist() == [0] * 5 + [1] * 5
        assert source.where(7).endswith("train-00001-of-00002.parquet, row 2")


def test_a_list_of_files_keeps_its_order(tmp_path: Path):
    images = noise(6, 500)
    paths = [tmp_path / f"{name}.parquet" for name in "ba"]
    for path, part in zip(paths, (images[:3], images[3:]), strict=True):
        write_images(path, part)
    source = open_source(paths)
    assert [source.read(i) for i in range(6)] == images
    assert source.name == f"{paths[0]} and 1 more"


def test_splits_are_not_mixed_unnoticed(tmp_path: Path):
    for split in ("train", "test"):
        write_images(tmp_path / f"{split}-00000-of-00001.parquet", noise(3, 50))
    with pytest.raises(MillError, match=r"several sets of images \(test-\*.parquet, train-\*.par"):
        open_source(tmp_path)
    assert len(open_source(f"{tmp_path}/*.parquet")) == 6
    assert len(open_source(f"{tmp_path}/train-*.parquet")) == 3


def test_a_folder_of_images_beside_a_table_is_a_folder(tmp_path: Path):
    making.write_folder(tmp_path, {"a.jpg": making.jpeg(0)})
    write_images(tmp_path / "table.parquet", noise(3, 50))
    assert open_source(tmp_path).where(0) == str(tmp_path / "a.jpg")


def test_the_index_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_images(tmp_path / "x.parquet", noise(5, 500), [0, 1, 2, 3, 4])
    os.utime(path, (HOURS_AGO, HOURS_AGO))
    before = open_source(path)
    built = parquet_index._build
    monkeypatch.setattr(parquet_index, "_build", lambda *_: pytest.fail("it was built again"))
    after = open_source(path)
    assert isinstance(after, Parquet) and read_all(after) == noise(5, 500)
    assert after.fingerprint == before.fingerprint
    assert after.labels is not None and after.labels.tolist() == [0, 1, 2, 3, 4]
    monkeypatch.setattr(parquet_index, "_build", built)
    write_images(path, noise(6, 500), [0] * 6)
    assert len(open_source(path)) == 6 and open_source(path).fingerprint != before.fingerprint


def test_moved_files_have_the_same_fingerprint(tmp_path: Path):
    path = write_images(tmp_path / "one/x.parquet", noise(5, 500))
    before = open_source(path).fingerprint
    (tmp_path / "one").rename(tmp_path / "two")
    assert open_source(tmp_path / "two").fingerprint == before


# ------------------------------------------------------------------------------- loaders and faults


def test_batches_are_those_of_a_folder(tmp_path: Path):
    files = {f"{i % 2}/{i}.jpg": making.jpeg(i) for i in range(12)}
    folder = open_source(making.write_folder(tmp_path / "folder", files))
    images = [folder.read(i) for i in range(12)]
    assert folder.labels is not None
    for name in ("snappy", "none"):
        path = tmp_path / f"{name}.parquet"
        write_images(path, images, folder.labels.tolist(), folder.classes, compression=name)
        ours, theirs = (
            loaders.build(data, "simclr(size=16)", 4, workers=2) for data in (path, folder)
        )
        for one, two in zip(ours, theirs, strict=True):
            assert one.ids.tolist() == two.ids.tolist()
            assert one.labels.tolist() == two.labels.tolist()
            for group in one.views:
                assert one.views[group].equal(two.views[group])


def test_bad_rows_go_to_the_ledger(tmp_path: Path):
    images: list[bytes | None] = [making.jpeg(i) for i in range(10)]
    images[3], images[6] = None, b"not an image"
    path = write_images(tmp_path / "x.parquet", images)
    ledger = tmp_path / "bad.jsonl"
    loader = loaders.build(path, "eval(size=16, short_side=16)", 5, ledger=ledger)
    for batch in loader:
        assert not {3, 6} & set(batch.ids.tolist())
    text = ledger.read_text()
    assert "row 3" in text and "no image bytes" in text
    assert "row 6" in text and "not an image of a known type" in text


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_files_that_change_while_they_are_open(tmp_path: Path, compression: str):
    path = write_images(tmp_path / "x.parquet", noise(5, 900), compression=compression)
    source = open_source(path)
    write_images(path, noise(7, 900))
    with pytest.raises(OSError, match="was changed since it was indexed"):
        source.read(0)
    path.unlink()
    with pytest.raises(OSError):
        source.read(0)


def test_damaged_pages_cost_their_rows_only(tmp_path: Path):
    images = noise(12, 3000)
    layout = {"compression": "zstd", "row_group_size": 4, "use_dictionary": False}
    path = write_images(tmp_path / "x.parquet", images, **layout)
    at = pyarrow.parquet.read_metadata(path).row_group(1).column(0).data_page_offset
    with open(path, "r+b") as file:
        file.seek(at + 1000)
        file.write(bytes(2000))
    source = open_source(path)
    for index in range(12):
        if 4 <= index < 8:
            with pytest.raises(OSError):
                source.read(index)
        else:
            assert source.read(index) == images[index]


def test_one_sentence(tmp_path: Path):
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1], "b": ["x"]}), tmp_path / "numbers.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    whole = write_images(tmp_path / "whole.parquet", noise(9, 900)).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-9])
    write_images(tmp_path / "mixed/a.parquet", noise(2, 50))
    parquet.write_table(pyarrow.table({"img": [b"x"]}), tmp_path / "mixed/b.parquet")
    for name, complaint in (
        ("numbers.parquet", "must name a column path, but has: a, b"),
        ("text.parquet", "cannot read .*text.parquet"),
        ("cut.parquet", "cannot read .*cut.parquet"),
        ("gone.parquet", "cannot read .*gone.parquet: No such file"),
        ("gone-*.parquet", "no file matches"),
        ("mixed", "b.parquet has no column image.bytes, unlike the first file"),
    ):
        with pytest.raises(MillError, match=complaint) as caught:
            open_source(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    for url in ("s3://bucket/x.parquet", "https://example.org/x.parquet"):
        with pytest.raises(MillError, match="copy them to a disk first"):
            open_source(url)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_images(tmp_path / "x.parquet", noise(2, 50))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MillError, match=r"needs pyarrow: pip install pyarrow"):
        open_source(tmp_path / "x.parquet")


def test_prepared_rows_are_copied(tmp_path: Path):
    images = [making.jpeg(i) for i in range(5)]
    path = write_images(tmp_path / "x.parquet", images, [0, 1, 0, 1, 0], ["cat", "dog"])
    making.prepare(path, tmp_path / "out", seed=None)
    names = ["cat", "dog", "cat", "dog", "cat"]
    assert making.samples(open_source(tmp_path / "out")) == list(zip(images, names, strict=True))
