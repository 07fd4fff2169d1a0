"""A source of the user's own can be named where data is named: module:Name(key=value)."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path

import pytest

from patchmill.loaders import build
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_data

SOURCE = """
class Few:
    name, classes, labels = "few", [], None

    def __init__(self, count=3):
        from patchmill.loaders.sources.scenes.source import Scenes
        self._scenes = Scenes(count=count, size=32)
        self.fingerprint = f"few-{count}"

    def __len__(self):
        return len(self._scenes)

    def read(self, index):
        return self._scenes.read(index)

    def where(self, index):
        return f"few {index}"

class Named(Few):
    labels = ["cat", "dog", "cat"]

class Short(Few):
    labels = [0, 1]

class Numbered(Few):
    labels, classes = [2, 0, 1], ["a", "b", "c"]

class Decoded(Few):
    def read(self, index):
        import numpy
        return numpy.zeros((8, 8, 3), numpy.uint8)

class Located(Few):
    def read(self, index):
        return "a/path.jpg"

class Poor:
    name, fingerprint, classes, read = "poor", "poor", [], None

    def __len__(self):
        return 3

from patchmill.loaders.sources.numbered import NumberedSource

class Derived(NumberedSource):
    name, fingerprint, classes = "derived", "derived", []
    where = read = None

    def __len__(self):
        return 3

number = 3
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "few_source.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "few_source", raising=False)
    importlib.invalidate_caches()


def test_it_is_read_like_any_other():
    loader = build("few_source:Few(count=4)", "simclr(size=16)", 2, workers=1)
    ids = [batch.ids.tolist() for batch in loader]
    assert sorted(ids[0] + ids[1]) == [0, 1, 2, 3]
    copy = pickle.loads(pickle.dumps(build("few_source:Few(count=4)", "simclr(size=16)", 2)))
    assert [batch.ids.tolist() for batch in copy] == ids


def test_parentheses_may_be_left_out_unless_a_file_is_called_so(tmp_path: Path):
    assert len(open_data("few_source:Few")) == 3
    (tmp_path / "few_source:Few").mkdir()
    with pytest.raises(MillError, match="there are no images in"):
        open_data("few_source:Few")


WRONG = {
    "few_source:Poor": "the source Poor has no where and no labels: docs/guides/own-source.md",
    "few_source:Derived": "the source Derived has no labels: docs/guides/own-source.md",
    "few_source:Named": "labels of the source Named must be None or 3 whole numbers, one for each",
    "few_source:Short": "not int64 of shape (2,)",
    "few_source:Many(count=4)": "has no 'Many'",
    "few_source:Few(4)": "literal keyword arguments",
    "few_source:Few(cuont=4)": "has no setting 'cuont'; did you mean 'count'",
    "few_source:number()": "number is not a class or function",
    "no_such_module:Few()": "there is no module no_such_module",
    "few_source:Few(count=__import__('os'))": "literal keyword arguments",
}


@pytest.mark.parametrize("text", WRONG)
def test_mistakes_are_one_sentence(text: str):
    with pytest.raises(MillError) as raised:
        open_data(text)
    assert WRONG[text] in str(raised.value) and "\n" not in str(raised.value)


def test_labels_may_be_a_list():
    (batch,) = build("few_source:Numbered", "simclr(size=16)", 3, workers=1)
    assert batch.labels.tolist() == [[2, 0, 1][id] for id in batch.ids.tolist()]


@pytest.mark.parametrize(("name", "kind"), [("Decoded", "ndarray"), ("Located", "str")])
def test_read_must_return_encoded_bytes(name: str, kind: str):
    loader = build(f"few_source:{name}", "simclr(size=16)", 3, workers=1)
    with pytest.raises(MillError, match=f"source {name} must return encoded bytes.* not a {kind};"):
        next(iter(loader))
