"""Folders: which files count, in which order, and when the cached index may be believed."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import folder, folder_listing, open_source
from patchmill.loaders.sources.folder import Folder

HOURS_AGO = 1_600_000_000


def make(root: Path, *files: str | bytes) -> Path:
    for file in files:
        path = os.path.join(os.fsencode(root), os.fsencode(file))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as out:
            out.write(b"bytes of " + os.fsencode(file))
    backdate(root)
    return root


def backdate(root: Path) -> None:
    """Set modification times to long ago, so that no directory counts as just changed."""
    for directory, _, _ in os.walk(os.fsencode(root)):
        os.utime(directory, (HOURS_AGO, HOURS_AGO))


def names(source: Folder) -> list[bytes]:
    root = os.fsencode(os.path.realpath(source.name)) + b"/"
    return [os.fsencode(source.where(i)).removeprefix(root) for i in range(len(source))]


def test_class_folders(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "dog/2.jpg", "cat/x.PNG", "dog/deep/er/1.jpeg", "ant/a.tif")
    source = Folder(root)
    assert source.classes == ["ant", "cat", "dog"]
    assert names(source) == [b"ant/a.tif", b"cat/x.PNG", b"dog/2.jpg", b"dog/deep/er/1.jpeg"]
    assert source.labels is not None and source.labels.dtype == np.int64
    assert source.labels.tolist() == [0, 1, 2, 2]
    assert source.read(1) == b"bytes of cat/x.PNG"
    assert source.where(1) == str(root / "cat/x.PNG")


def test_flat_folder(tmp_path: Path) -> None:
    source = Folder(make(tmp_path / "data", "b.jpg", "a.webp", "notes/readme.txt"))
    assert names(source) == [b"a.webp", b"b.jpg"]
    assert source.labels is None and source.classes == []


def test_files_without_an_image_extension_are_skipped(tmp_path: Path) -> None:
    root = make(
        tmp_path / "data",
        *(f"a/{i}.{ending}" for i, ending in enumerate(folder.EXTENSIONS)),
        *("a/.hidden.jpg", "a/list.txt", "a/jpg", "a/.git/x.jpg", ".trash/x.jpg", "a/x.jpg.part"),
    )
    source = Folder(root)
    assert len(source) == len(folder.EXTENSIONS) and source.classes == ["a"]


def test_images_beside_class_folders_are_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path / "data", "preview.jpg", "a/1.jpg", "empty/readme.txt")
    with caplog.at_level(logging.WARNING, "patchmill"):
        source = Folder(root)
    assert names(source) == [b"a/1.jpg"] and source.classes == ["a", "empty"]
    assert "1 images directly in" in caplog.text and "empty holds no images" in caplog.text
    caplog.clear()
    Folder(root)
    assert not caplog.text  # said once per process
    folder._warn_once.cache_clear()
    Folder(root)  # another process, which has the cached index
    assert "1 images directly in" in caplog.text and "empty holds no images" in caplog.text


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = make(tmp_path / "data", b"caf\xe9/\xff\xfe.jpg", b"caf\xe9/\n.jpg")
    for source in (Folder(root), Folder(root)):
        assert names(source) == [b"caf\xe9/\n.jpg", b"caf\xe9/\xff\xfe.jpg"]
        assert source.read(1) == b"bytes of " + b"caf\xe9/\xff\xfe.jpg"
        assert source.classes == [os.fsdecode(b"caf\xe9")]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    outside = make(tmp_path / "elsewhere", "1.jpg", "sub/2.jpg")
    root = make(tmp_path / "data", "a/0.jpg")
    (root / "b").symlink_to(outside)
    (root / "c").symlink_to(outside)
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(".")
    (outside / "sub" / "back").symlink_to(outside)
    (root / "a" / "gone.jpg").symlink_to("nowhere")
    source = Folder(root)
    assert names(source) == [
        *(b"a/0.jpg", b"a/gone.jpg", b"b/1.jpg", b"b/sub/2.jpg", b"c/1.jpg", b"c/sub/2.jpg")
    ]
    with pytest.raises(OSError):
        source.read(1)


tree_names = st.text("abAB-./é", min_size=1, max_size=5).filter(lambda name: "//" not in name)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(tree_names, min_size=1, max_size=12))
def test_order_is_that_of_path_bytes(tmp_path: Path, files: set[str]) -> None:
    root = tmp_path / str(abs(hash(frozenset(files))))
    wanted = set()
    for file in files:
        parts = [part for part in file.split("/") if part and not part.startswith(".")]
        if parts:
            path = "/".join(["class", *(f"d{part}" for part in parts[:-1]), f"{parts[-1]}.jpg"])
            make(root, path)
            wanted.add(os.fsencode(path))
    if wanted:
        assert names(Folder(root)) == sorted(wanted)


def test_fingerprint_is_that_of_the_relative_paths(tmp_path: Path) -> None:
    first = Folder(make(tmp_path / "one", "a/1.jpg", "b/2.jpg"))
    second = Folder(make(tmp_path / "two", "a/1.jpg", "b/2.jpg"))
    third = Folder(make(tmp_path / "three", "a/1.jpg", "b/3.jpg"))
    assert first.fingerprint == second.fingerprint != third.fingerprint


# --------------------------------------------------------------------------------------- the index


def forbid_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(*_: object) -> None:
        raise AssertionError("the folder was listed again")

    monkeypatch.setattr(folder_listing, "list_images", listed)


def test_an_unchanged_folder_is_not_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "data", "a/1.jpg", "b/sub/2.jpg")
    before = Folder(root)
    forbid_listing(monkeypatch)
    after = Folder(root)
    assert names(after) == names(before) and after.fingerprint == before.fingerprint


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "new class", "deep"])
def test_changes_are_noticed(tmp_path: Path, change: str) -> None:
    root = make(tmp_path / "data", "a/1.jpg", "b/sub/2.jpg", "b/3.jpg")
    before = names(Folder(root))
    if change == "added":
        (root / "a" / "9.jpg").touch()
    elif change == "removed":
        (root / "b" / "3.jpg").unlink()
    elif change == "renamed":
        (root / "a" / "1.jpg").rename(root / "a" / "0.jpg")
    elif change == "new class":
        (root / "c").mkdir()
        (root / "c" / "1.jpg").touch()
    else:
        (root / "b" / "sub" / "0.jpg").touch()
    after = names(Folder(root))
    assert after != before
    assert after == sorted(os.fsencode(path.relative_to(root)) for path in root.rglob("*.jpg"))


def test_the_index_of_a_folder_that_just_changed_is_not_trusted(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "a/1.jpg")
    os.utime(root / "a")
    seen = os.stat(root / "a").st_mtime_ns
    Folder(root)
    (root / "a" / "2.jpg").touch()
    os.utime(root / "a", ns=(seen, seen))  # as on a disk with coarse times
    assert len(Folder(root)) == 2


@pytest.mark.parametrize("damage", [b"", b"not an index", None])
def test_a_damaged_index_is_made_again(
    tmp_path: Path, cache_folder: Path, damage: bytes | None
) -> None:
    root = make(tmp_path / "data", "a/1.jpg")
    Folder(root)
    (index,) = (cache_folder / "folders").iterdir()
    index.write_bytes(index.read_bytes()[:-7] if damage is None else damage)
    assert names(Folder(root)) == [b"a/1.jpg"]


def test_without_a_cache_it_works_and_warns(
    tmp_path: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache_folder.write_text("a file where the cache should be")
    with caplog.at_level(logging.WARNING, "patchmill"):
        source = Folder(make(tmp_path / "data", "a/1.jpg"))
    assert source.read(0) == b"bytes of a/1.jpg" and source.labels is not None
    assert "PATCHMILL_CACHE" in caplog.text


# --------------------------------------------------------------------------------------- bad input


def test_splits_that_are_taken_as_classes_are_said(tmp_path: Path, caplog) -> None:
    for place in ("set/train/cat", "set/val/cat", "animals/test/cat", "animals/dog/big"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.jpg").touch()
    for _ in range(2):  # the second time from the cached index
        caplog.clear()
        folder._warn_once.cache_clear()
        open_source(str(tmp_path / "set"))
        assert "the classes of" in caplog.text and "folders train and val" in caplog.text
    caplog.clear()
    open_source(str(tmp_path / "animals"))
    open_source(str(tmp_path / "set/train"))
    assert "the classes of" not in caplog.text


def test_missing_file_and_empty(tmp_path: Path) -> None:
    (tmp_path / "file.jpg").touch()
    (tmp_path / "empty").mkdir()
    for path, sentence in (
        ("nowhere", "there is no folder"),
        ("file.jpg", "is a single file of none of the kinds"),
        ("empty", "no images in .* jpg, jpeg, png"),
    ):
        with pytest.raises(MillError, match=sentence) as caught:
            open_source(str(tmp_path / path))
        assert path in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(MillError, match="there is no folder"):
        open_source("")


def test_an_unreadable_sub_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "data", "a/1.jpg", "b/2.jpg")
    scandir = os.scandir

    def refuse(path: bytes) -> object:
        if path.endswith(b"/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(folder.os, "scandir", refuse)
    with pytest.raises(MillError, match=r"cannot list the folder .*/b.*Permission denied"):
        Folder(root)
