"""Classes by the folders inside an archive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.loaders.sources import class_folders


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        (b"1.jpg", b""),
        (b"./1.jpg", b""),
        (b"/1.jpg", b""),
        (b"cat/1.jpg", b"cat"),
        (b"./train//cat/1.jpg", b"train/cat"),
    ],
)
def test_folder_of_a_member(name: bytes, folder: bytes) -> None:
    assert class_folders.folder_of(name) == folder


@pytest.mark.parametrize(
    ("folders", "names", "root"),
    [
        ([b"dog", b"cat"], [b"cat", b"dog"], b""),
        ([b"train/dog", b"train/cat"], [b"cat", b"dog"], b"train"),
        ([b"a/train/dog/small", b"a/train/cat"], [b"cat", b"dog"], b"a/train"),
        ([b"cat/1", b"cat/2", b"dog"], [b"cat", b"dog"], b""),
        ([b"photos"], [], b"photos"),
        ([b""], [], b""),
        ([], [], b""),
    ],
)
def test_classes(folders: list[bytes], names: list[bytes], root: bytes) -> None:
    tree = class_folders.find(folders)
    assert (tree.names, tree.root, tree.unclassed) == (names, root, None)
    for folder, label in zip(folders, tree.labels.tolist(), strict=True):
        assert names[label] in folder.split(b"/") if names else label == -1


@pytest.mark.parametrize("folders", [[b"cat", b""], [b"a/cat", b"a/dog", b"a"], [b"cat/1", b"cat"]])
def test_images_beside_the_folders_mean_no_classes(folders: list[bytes]) -> None:
    tree = class_folders.find(folders)
    assert tree.names == [] and set(tree.labels.tolist()) == {-1}
    assert tree.unclassed == len(folders) - 1


paths = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(b"/".join)


@given(st.lists(paths, min_size=1, unique=True), st.sampled_from([b"", b"x", b"x/y"]))
def test_shared_folders_change_nothing(folders: list[bytes], above: bytes) -> None:
    tree = class_folders.find(folders)
    below = class_folders.find([b"/".join(filter(None, (above, f))) for f in folders])
    assert below.names == tree.names
    assert below.labels.tolist() == tree.labels.tolist()
