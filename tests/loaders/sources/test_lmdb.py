"""LMDB databases of encoded images, and the layouts that are refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers_archives import CLASSES, check_like_folder, photo, photos, write_folder, write_lmdb

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.archives.lmdb_file import Lmdb

pytest.importorskip("lmdb", reason="lmdb is not installed")


@pytest.mark.parametrize("subdir", [True, False])
@pytest.mark.parametrize("above", ["", "train/"])
def test_like_the_unpacked_folder(tmp_path: Path, subdir: bool, above: str) -> None:
    entries = {above + name: content for name, content in photos().items()}
    path = write_lmdb(tmp_path / "photos.lmdb", entries | {"__len__": b"9"}, subdir)
    folder = write_folder(tmp_path / "folder", photos())
    for _ in range(2):  # listed, and from the cache
        source = open_source(path)
        assert isinstance(source, Lmdb)
        check_like_folder(source, folder)
        assert source.where(0) == f"{path}: {above}cat/0.jpg"


def test_keys_without_folders_mean_no_labels(tmp_path: Path) -> None:
    """LSUN is so, with hashes as keys."""
    path = write_lmdb(tmp_path / "church_lmdb", {f"{n:x}" * 8: photo(n) for n in range(5)})
    source = open_source(path)
    assert source.labels is None and len(source) == 5
    assert source.read(3) == photo(3)


def test_numbered_images_with_labels(tmp_path: Path) -> None:
    entries = {"num-samples": b"4"}
    for n, label in enumerate(["dog", "cat", "dog", "cat"], 1):
        entries |= {f"image-{n:09d}": photo(n), f"label-{n:09d}": label.encode()}
    source = open_source(write_lmdb(tmp_path / "x.lmdb", entries))
    assert source.classes == ["cat", "dog"] and len(source) == 4
    assert source.labels is not None and source.labels.tolist() == [1, 0, 1, 0]


def test_words_to_read_are_no_classes(tmp_path: Path) -> None:
    entries = {}
    for n, word in enumerate(["every", "word", "differs", "here"], 1):
        entries |= {f"image-{n:09d}": photo(n), f"label-{n:09d}": word.encode()}
    assert open_source(write_lmdb(tmp_path / "x.lmdb", entries)).labels is None


def test_two_sources_and_many_threads_share_a_database(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "x.lmdb", photos())
    one, other = open_source(path), open_source(path)
    ids = [i % 9 for i in range(300)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one.read, ids)) == list(pool.map(other.read, ids))


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork(tmp_path: Path) -> None:
    source = open_source(write_lmdb(tmp_path / "x.lmdb", photos()))
    receiver, sender = os.pipe()
    if not (child := os.fork()):
        os.write(sender, source.read(5)[:99])
        os._exit(0)
    os.waitpid(child, 0)
    os.close(sender)
    assert os.read(receiver, 99) == source.read(5)[:99]
    os.close(receiver)


def test_a_changed_database_is_listed_again(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "x.lmdb", photos())
    assert len(open_source(path)) == 9
    write_lmdb(path, {"newt/9.jpg": photo(9)})
    assert len(open_source(path)) == 10


def test_a_value_that_is_no_image_is_left_to_the_decoder(tmp_path: Path) -> None:
    source = open_source(write_lmdb(tmp_path / "x.lmdb", photos() | {"cat/9.jpg": b"text"}))
    assert source.read(3) == b"text" and source.classes == CLASSES


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o700)


def test_pickles_are_refused_and_never_loaded(tmp_path: Path) -> None:
    entries = {f"{n}": pickle.dumps((photo(n), Evil(tmp_path / "evil"))) for n in range(3)}
    entries |= {"__keys__": pickle.dumps(Evil(tmp_path / "evil")), "__len__": pickle.dumps(3)}
    path = write_lmdb(tmp_path / "x.lmdb", entries)
    with pytest.raises(
        MillError, match=r"x.lmdb are Python pickles, which are never loaded here \(first under '0'"
    ) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("pixels", r"the values of .* are not image files \(first under '0'\): docs"),
        ("no images", r"there are no images in .*, which has 1 keys"),
        ("empty", r"there are no images in .*, which has 0 keys"),
        ("cut", r"x.lmdb is truncated: it has 8,192 of [0-9,]+ bytes; fetch it again"),
        ("text", r"cannot open .*x.lmdb: .*"),
        ("gone", r"cannot open .*x.lmdb: No such file"),
    ],
)
def test_one_sentence(tmp_path: Path, damage: str, complaint: str) -> None:
    path = tmp_path / "x.lmdb"
    if damage != "gone":
        entries = {
            "pixels": {str(n): bytes(300) for n in range(3)},
            "no images": {"__len__": b"0"},
            "empty": {},
        }.get(damage, photos())
        write_lmdb(path, entries)
    if damage == "cut":
        os.truncate(path / "data.mdb", 8192)
    elif damage == "text":
        (path / "data.mdb").write_bytes(b"text" * 5000)
    with pytest.raises(MillError, match=complaint) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lmdb(tmp_path / "x.lmdb", photos())
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(MillError, match=r"x.lmdb needs the lmdb package: pip install lmdb"):
        open_source(path)


CUT_OFF = """
import os, sys, threading
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source

path, file, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
source = open_source(path)
assert len(source.read(0)) > 10_000
os.truncate(file, size)
told = set()
def read(first):
    for index in range(first, len(source), 3):
        try:
            source.read(index)
            told.add("a sample")
        except (MillError, OSError) as error:
            told.add(str(error))
threads = [threading.Thread(target=read, args=(i,)) for i in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\\n".join(sorted(told)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the handler is for Linux")
@pytest.mark.parametrize("subdir", [True, False])
@pytest.mark.parametrize("size", [0, 8192, 50_001, 100_000])
def test_a_database_that_is_cut_off_while_it_is_read(
    tmp_path: Path, size: int, subdir: bool
) -> None:
    """Each sample is one sentence: reading what is not there any more would end the process."""
    entries = {f"{number:03d}.jpg": photo(1) + bytes(10_000) for number in range(40)}
    path = write_lmdb(tmp_path / "x.lmdb", entries, subdir)
    file = path / "data.mdb" if subdir else path
    command = [sys.executable, "-c", CUT_OFF, str(path), str(file), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (told,) = done.stdout.splitlines()
    assert told.startswith(f"{os.path.realpath(file)} was truncated while it was in use: ")


DAMAGED = """
import sys
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
try:
    open_source(sys.argv[1])
except MillError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("at", "changed", "complaint"),
    [
        (10, b"\0", "does not belong to its tree"),  # flags: neither a leaf nor a branch
        (12, b"\xff\xff", "does not belong to its tree"),  # entries up to beyond the page
        (12, b"\x10\0", "is empty"),
        (16, b"\xfe\xff", "lies outside"),  # the place of the first entry
    ],
)
def test_damaged_pages_are_one_sentence(
    tmp_path: Path, at: int, changed: bytes, complaint: str
) -> None:
    """The library's own checks end the process, where there are any."""
    entries = {f"{number:0200d}.jpg": photo(1)[:200] for number in range(60)}
    path = write_lmdb(tmp_path / "x.lmdb", entries, subdir=False)
    data = bytearray(path.read_bytes())
    leaves = [page for page in range(2, len(data) // 4096) if data[page * 4096 + 10] == 2]
    start = leaves[1] * 4096 + at
    data[start : start + len(changed)] = changed
    path.write_bytes(data)
    command = [sys.executable, "-c", DAMAGED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    (told,) = done.stdout.splitlines()
    assert done.returncode == 0 and f"{path} is damaged: " in told and complaint in told
