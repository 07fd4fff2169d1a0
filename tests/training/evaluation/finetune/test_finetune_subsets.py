"""Subsets of labels: the same for all runs, with the same share of every class, stored as files."""

from __future__ import annotations

import helpers_finetune
import numpy as np
import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.finetune import subsets


class Images:
    """A source of labelled file names."""

    name, fingerprint = "images", "f1"

    def __init__(self, labels, names=()):
        self.labels = None if labels is None else np.array(labels)
        self.classes = ["cat", "dog", "owl"] if labels is not None else []
        self._names = names

    def __len__(self):
        return len(self._names) if self.labels is None else len(self.labels)

    def labels_of(self, ids):
        return None if self.labels is None else self.labels[ids]

    def where(self, index):
        return self._names[index]


BALANCED = Images([0, 1, 2] * 40)


@pytest.mark.parametrize("share", [0.05, 0.08, 0.1, 0.2, 0.5, 1.0])
def test_every_class_has_the_same_share(share):
    ids = subsets.draw(BALANCED, share, seed=3)
    counts = np.bincount(BALANCED.labels[ids], minlength=3)
    assert counts.tolist() == [round(40 * share)] * 3
    assert len(set(ids.tolist())) == len(ids) and ids.tolist() == sorted(ids)
    uneven = Images([0] * 40 + [1] * 20 + [2] * 10)
    counts = np.bincount(uneven.labels[subsets.draw(uneven, share, 3)])
    assert counts.tolist() == [int(n * share + 0.5) for n in (40, 20, 10)]


def test_a_subset_depends_only_on_labels_share_and_seed():
    first = subsets.draw(BALANCED, 0.2, 0)
    assert first.tolist() == subsets.draw(Images([0, 1, 2] * 40), 0.2, 0).tolist()
    assert first.tolist() != subsets.draw(BALANCED, 0.2, 1).tolist()
    # Drawn once and for all: stored subsets of other runs must stay what they are.
    assert subsets.draw(BALANCED, 0.05, 0).tolist() == PINNED


PINNED = [10, 23, 63, 74, 87, 91]


def test_smaller_shares_lie_within_larger_ones():
    drawn = [set(subsets.draw(BALANCED, share, 2).tolist()) for share in (0.05, 0.1, 0.2, 1.0)]
    assert drawn[0] < drawn[1] < drawn[2] < drawn[3] == set(range(120))


def test_images_without_a_label_are_skipped():
    partly = Images([0, -1, 1, -1] * 10)
    assert subsets.draw(partly, 1.0, 0).tolist() == list(range(0, 40, 2))


def test_subsets_are_stored_and_read_again(tmp_path, monkeypatch):
    source = helpers_finetune.source()
    few = subsets.stored(source, 0.25, 4, tmp_path / "a")
    path = tmp_path / "a" / "subset-25pct-seed4.txt"
    header, *lines = path.read_text().splitlines()
    assert header.startswith("# 25 % of each class of scenes(") and header.endswith("), seed 4")
    assert list(map(int, lines)) == few.ids.tolist() and few.title == "25 % of the labels"
    other = subsets.stored(source, 0.25, 4, tmp_path / "b")
    assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()
    assert other.ids.tolist() == few.ids.tolist()
    monkeypatch.setattr(subsets, "draw", lambda *_: pytest.fail("drawn again"))
    assert subsets.stored(source, 0.25, 4, tmp_path / "a").ids.tolist() == few.ids.tolist()
    assert subsets.key_of(0.05) == "5pct" and subsets.key_of(0.005) == "0_5pct"


def test_a_stored_subset_of_other_data_is_an_error(tmp_path):
    source = helpers_finetune.source()
    subsets.stored(source, 0.25, 0, tmp_path)
    (path,) = tmp_path.iterdir()
    with pytest.raises(MillError, match="subset of other data than images: name another folder"):
        subsets.read(BALANCED, path)
    path.write_text(path.read_text() + "a cat\n")
    with pytest.raises(MillError, match="is damaged: each of its lines must be the number"):
        subsets.read(source, path)


def test_a_share_without_an_image_of_a_class_names_the_least_share():
    few_owls = Images([0] * 40 + [1] * 20 + [2] * 8)
    with pytest.raises(MillError) as error:
        subsets.draw(few_owls, 0.05, 0)
    assert str(error.value) == (
        "labels=0.05 selects no image of class owl, which has 8: use at least labels=0.0625"
    )
    assert np.bincount(few_owls.labels[subsets.draw(few_owls, 0.0625, 0)]).tolist()[2] == 1


def test_images_without_labels_are_an_error():
    for unlabelled in (Images(None, ["a.jpg"]), Images([-1, -1])):
        with pytest.raises(MillError, match=r"no labels to learn from: .* data.bank=DIR"):
            subsets.draw(unlabelled, 0.5, 0)


NAMES = [
    "/data/n01/n01_7.JPEG",
    "/data/n01/x.JPEG",
    "/data/n02/x.JPEG",
    "b.tar: n02_1.jpg at byte 512",
]


@pytest.mark.parametrize(
    ("lines", "ids"),
    [
        ("n01_7.JPEG\nn02_1.jpg\n", [0, 3]),
        ("# a comment\nn02/x.JPEG\n\n./n01/n01_7.JPEG\n", [0, 2]),
        ("3\n1\n", [1, 3]),
    ],
)
def test_lists_name_images_by_file_or_number(tmp_path, lines, ids):
    file = tmp_path / "1percent.txt"
    file.write_text(lines)
    few = subsets.listed(Images([0, 0, 1, 1], NAMES), file)
    assert few.ids.tolist() == ids and few.title == "the labels listed in 1percent.txt"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("gone.JPEG\nn01_7.JPEG\n", "names 1 images that are not in images: gone.JPEG; list only"),
        ("x.JPEG\n", "x.JPEG is the name of 2 images of images: add its folder"),
        ("7_7.JPEG\n", "not in images: 7_7.JPEG"),
        ("4\n", "lists sample 4, but images has samples 0 to 3"),
        ("\n", "lists no images"),
    ],
)
def test_mistakes_in_lists_are_one_sentence(tmp_path, lines, message):
    file = tmp_path / "list.txt"
    file.write_text(lines)
    with pytest.raises(MillError, match=message):
        subsets.listed(Images([0, 0, 1, 1], NAMES), file)
    with pytest.raises(MillError, match=r"cannot read the list .*: No such file"):
        subsets.listed(BALANCED, tmp_path / "gone.txt")
