"""Lists of images: files as data for loaders, paths in memory, and what is wrong with them."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import helpers_prepare as making
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill import loaders
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.lists.path_list import PathList, Paths

TEXT = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    files = {f"images/{i}.jpg": making.jpeg(i) for i in range(6)}
    return making.write_folder(tmp_path, files)


def write_list(folder: Path, ending: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"list{ending}"
    with open(path, "w", newline="", encoding="utf-8") as file:
        if ending == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            delimiter = "\t" if ending == ".tsv" else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_a_list_is_data_for_a_loader(photos: Path, ending: str):
    order = (4, 1, 5, 0)
    rows = [{"path": f"images/{i}.jpg", "label": "odd" if i % 2 else "even"} for i in order]
    path = write_list(photos, ending, rows)
    source = open_source(path)
    assert [source.read(i) for i in range(4)] == [making.jpeg(i) for i in order]
    assert source.classes == ["even", "odd"]
    (batch,) = loaders.build(str(path), "eval(size=16, short_side=16)", 4, workers=2)
    labels = dict(zip(batch.ids.tolist(), batch.labels.tolist(), strict=True))
    assert labels == {0: 0, 1: 1, 2: 1, 3: 0}


def test_other_titles_and_class_names(photos: Path):
    rows = [
        {"class_name": name, "File_Name": f"images/{i}.jpg", "target": i}
        for i, name in ((2, "cat"), (0, "dog"), (2, "cat"))
    ]
    for ending in (".csv", ".jsonl"):
        source = open_source(write_list(photos, ending, rows))
        assert source.labels is not None
        assert (source.labels.tolist(), source.classes) == ([2, 0, 2], ["dog", "1", "cat"])
    only_names = [{"path": row["File_Name"], "class_name": row["class_name"]} for row in rows]
    source = open_source(write_list(photos, ".csv", only_names))
    assert source.labels is not None
    assert (source.labels.tolist(), source.classes) == ([0, 1, 0], ["cat", "dog"])


def test_parquet_lists_take_class_names_from_the_schema(photos: Path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog", "eel"]}}
    table = pyarrow.table({"path": ["images/1.jpg", "images/0.jpg"], "label": [1, 2]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(table.replace_schema_metadata(metadata), photos / "list.parquet")
    source = open_source(photos / "list.parquet")
    assert source.read(0) == making.jpeg(1) and source.labels is not None
    assert (source.labels.tolist(), source.classes) == ([1, 2], ["0", "dog", "eel"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(TEXT, st.integers(0, 9)), min_size=1, max_size=5))
def test_lines_of_json_and_of_csv_are_the_same_list(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]
):
    folder = tmp_path_factory.mktemp("list")
    named = [{"path": name, "label": label} for name, label in rows]
    lines, table = (PathList(write_list(folder, ending, named)) for ending in (".jsonl", ".csv"))
    assert lines.fingerprint == table.fingerprint
    assert [lines.where(i) for i in range(len(rows))] == [f"{folder}/{name}" for name, _ in rows]
    assert lines.labels is not None and lines.labels.tolist() == [label for _, label in rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_first_line_says_what_separates_values(photos: Path, delimiter: str):
    lines = [["path", "label"], ["images/1.jpg", "a,b;c"], ["images/0.jpg", "d"]]
    with open(photos / "list.csv", "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(lines)
    source = open_source(photos / "list.csv")
    assert source.labels is not None and source.classes == ["a,b;c", "d"]
    assert (source.labels.tolist(), source.read(0)) == ([0, 1], making.jpeg(1))


def test_missing_files_go_to_the_ledger(photos: Path):
    rows = [{"path": f"images/{i}.jpg"} for i in (0, 1, 99, 2, 3)]
    ledger = photos / "bad.jsonl"
    path = write_list(photos, ".csv", rows)
    (batch,) = loaders.build(path, "eval(size=16, short_side=16)", 5, ledger=ledger)
    assert 2 not in batch.ids.tolist()
    assert "99.jpg" in ledger.read_text() and "No such file" in ledger.read_text()


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("l.jsonl", "", "the list .* is empty"),
        ("l.jsonl", "{\n", "cannot read line 1 of"),
        ("l.jsonl", '{"path": "a"}\n\n[1]\n', "line 3 of .* must be an object"),
        ("l.jsonl", '{"file": "a"}\n', "line 1 of .* must name a column path, but has: file"),
        (
            "l.jsonl",
            '{"path": "a"}\n{"label": 1}\n',
            "line 2 of .* needs a string or a whole number",
        ),
        ("l.jsonl", '{"path": ""}\n', "line 1 of .* needs a string"),
        ("l.csv", "a.jpg,cat\n", "must name a column path, .*; name the columns path and label"),
        ("l.csv", "path,label,class_name\na,1,x\nb,1,y\n", "names the label 1 both 'x' and 'y'"),
        ("l.csv", "path\nnone/a.jpg\nnone/b.jpg\n", "no image at .*none/a.jpg.* are relative to"),
    ],
)
def test_one_sentence(tmp_path: Path, name: str, text: str, sentence: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(MillError, match=sentence) as caught:
        open_source(tmp_path / name)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- in memory


def test_paths_in_memory(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(photos)
    relative = [f"images/{i}.jpg" for i in (3, 0, 5)]
    for paths in (relative, [Path(path) for path in relative], tuple(relative)):
        source = open_source(paths)
        assert [source.read(i) for i in range(3)] == [making.jpeg(i) for i in (3, 0, 5)]
        assert source.labels is None and source.name == "images/3.jpg and 2 more"
        assert source.where(0) == str(photos / "images/3.jpg")
    assert open_source(np.array(relative)).read(0) == making.jpeg(3)
    os.chdir("/")
    assert source.read(1) == making.jpeg(0)


def test_pairs_of_path_and_label(photos: Path):
    paths = [photos / f"images/{i}.jpg" for i in range(3)]
    names = open_source(list(zip(paths, ("b", "a", "b"), strict=True)))
    numbers = open_source(list(zip(paths, np.array([2, 0, 2]), strict=True)))
    assert names.labels is not None and numbers.labels is not None
    assert (names.labels.tolist(), names.classes) == ([1, 0, 1], ["a", "b"])
    assert (numbers.labels.tolist(), numbers.classes) == ([2, 0, 2], ["0", "1", "2"])
    assert names.fingerprint != numbers.fingerprint


@pytest.mark.parametrize("one", ["1_2", "\u0661\u0662", "0x0c", "12e0"])
def test_texts_that_only_python_calls_numbers_are_names(photos: Path, one: str):
    source = open_source([(photos / "images/0.jpg", "12"), (photos / "images/1.jpg", one)])
    assert source.labels is not None and source.labels.tolist() in ([0, 1], [1, 0])
    assert set(source.classes) == {"12", one}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(TEXT, st.integers(-3, 9)), min_size=1, max_size=6))
def test_fingerprints_tell_lists_apart(rows: list[tuple[str, int]]):
    def fingerprint(rows: list[tuple[str, int]]) -> str:
        labels = np.array([label for _, label in rows])
        return Paths("x", ".", [path for path, _ in rows], labels).fingerprint

    path, label = rows[0]
    assert fingerprint(rows) == fingerprint(list(rows))
    assert fingerprint(rows) != fingerprint([(path + "x", label), *rows[1:]])
    assert fingerprint(rows) != fingerprint([(path, label + 1), *rows[1:]])


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "the list is empty"),
        (["none/a.jpg"], "there is no image at .*none/a.jpg.* are relative to"),
        (["a.jpg", 7], "item 1 of the list must be a path, or a path and its label"),
        ([("a.jpg", 0), "b.jpg"], "item 1 of the list needs a whole number or a name"),
        ([("a.jpg", 0), ("b.jpg", 1.5)], "item 1 of the list needs a whole number or a name"),
        ([("a.jpg", 0), ("b.jpg",)], "item 1 of the list must be a path, or a path and its label"),
    ],
)
def test_one_sentence_for_items(items: list[Any], sentence: str):
    with pytest.raises(MillError, match=sentence) as caught:
        open_source(items)
    assert "\n" not in str(caught.value)
