"""Lists of paths: CSV, TSV and Parquet."""

import csv
import sys
from pathlib import Path

import helpers_prepare as making
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.lists.path_list import PathList

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_list_is_prepared_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    files = {f"images/{i}.jpg": making.jpeg(i) for i in range(4)}
    making.write_folder(tmp_path, files)
    text = (
        "label,path\ncat,images/2.jpg\n\ndog,images/0.jpg\ncat,images/gone.jpg\ncat,images/1.jpg\n"
    )
    write(tmp_path / "list.csv", text)
    result = making.prepare(tmp_path / "list.csv", tmp_path / "out", seed=None)
    expected = [(2, "cat"), (0, "dog"), (1, "cat")]
    found = making.samples(open_source(tmp_path / "out"))
    assert found == [(files[f"images/{i}.jpg"], label) for i, label in expected]
    assert result is not None
    (bad,) = result.tally.bad
    assert (bad.id, bad.reason) == (2, "No such file or directory")


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (["3", "0", "3"], ["0", "1", "2", "3"], [3, 0, 3]),
        (["b", "a", "b"], ["a", "b"], [1, 0, 1]),
        (["-1", "7", "-1"], [], [-1, 7, -1]),
        (["1", "x", "1"], ["1", "x"], [0, 1, 0]),
    ],
)
def test_labels_are_numbers_or_names(
    tmp_path: Path, labels: list[str], classes: list[str], numbers: list[int]
):
    rows = "".join(f"{i}.jpg\t{label}\n" for i, label in enumerate(labels))
    source = PathList(write(tmp_path / "list.tsv", "path\tlabel\n" + rows))
    assert source.labels is not None
    assert (source.classes, source.labels.tolist()) == (classes, numbers)


@settings(max_examples=30, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=5))
def test_paths_of_any_characters(tmp_path_factory: pytest.TempPathFactory, names: list[str]):
    folder = tmp_path_factory.mktemp("list")
    with open(folder / "list.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path"], *([name] for name in names)])
    source = PathList(folder / "list.csv")
    assert [source.where(i) for i in range(len(source))] == [str(folder) + "/" + n for n in names]
    assert source.labels is None


def test_lists_that_differ_have_other_fingerprints(tmp_path: Path):
    texts = ["path\na\nb\n", "path\nab\n\n", "path\nb\na\n", "path,label\na,0\nb,1\n"]
    texts += ["path,label\na,1\nb,0\n"]
    found = {PathList(write(tmp_path / "l.csv", text)).fingerprint for text in texts}
    assert len(found) == len(texts)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must name a column path, but has: nothing"),
        ("file,label\na,1\n", "must name a column path, but has: file, label"),
        ("path\n", r"the list .* is empty"),
        ("path,label\na.jpg\n", "line 2 of .* has 1 values, the first line 2"),
        ("path,label\na,b.jpg,1\n", "line 2 of .* has 3 values"),
        ("path,label\n,1\n", "leave no path empty"),
        ("path,label\na,99999999999999999999\n", "more than 64 bits"),
    ],
)
def test_unreadable_lists_are_reported_in_one_sentence(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(MillError, match=sentence):
        PathList(write(tmp_path / "list.csv", text))


def test_a_missing_list(tmp_path: Path):
    with pytest.raises(MillError, match="cannot read the list"):
        PathList(tmp_path / "list.csv")


def test_parquet(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    table = pyarrow.table({"extra": [1, 2], "label": [5, 3], "path": ["a.jpg", "b.jpg"]})
    parquet.write_table(table, tmp_path / "list.parquet")
    source = PathList(tmp_path / "list.parquet")
    assert source.labels is not None
    assert [Path(source.where(i)).name for i in range(2)] == ["a.jpg", "b.jpg"]
    assert source.labels.tolist() == [5, 3]


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write(tmp_path / "list.parquet", "")
    with pytest.raises(MillError, match="needs pyarrow: pip install pyarrow"):
        PathList(tmp_path / "list.parquet")
