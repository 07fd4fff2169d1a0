"""Labels of tars without .cls: class folders, tars of tars, tars named by class, lists."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import pytest
from helpers_archives import CLASSES, EACH, photo, photos, tar_of, write_folder
from helpers_shards import backdate, image, write_samples, write_tar

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import columns
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.folder import Folder
from patchmill.loaders.sources.shards import index as shard_index
from patchmill.loaders.sources.shards import set_index
from patchmill.loaders.sources.shards.source import Shards

WNIDS = ["n01440764", "n01443537", "n01484850"]


def by_class(source: Shards | Folder) -> dict[bytes, str]:
    """The class of each image, by the image's bytes."""
    assert source.labels is not None
    return {source.read(i): source.classes[source.labels[i]] for i in range(len(source))}


def tar_of_tars(path: Path, **more: bytes) -> Path:
    inner = [
        (
            f"{wnid}.tar",
            tar_of({f"{wnid}_{n}.JPEG": photo(place * EACH + n) for n in range(EACH)}),
        )
        for place, wnid in enumerate(WNIDS)
    ]
    return write_tar(path, [*inner, *more.items()])


# ----------------------------------------------------------------------------------- class folders


@pytest.mark.parametrize("above", ["", "./", "train/", "./data/train/"])
def test_class_folders_are_the_classes_of_the_unpacked_folder(
    tmp_path: Path, above: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = [(above + name, content) for name, content in reversed(photos().items())]
    path = write_tar(tmp_path / "train.tar", files)
    with caplog.at_level(logging.INFO, "patchmill"):
        source, again = open_source(path), open_source(path)
    unpacked = Folder(write_folder(tmp_path / "folder", photos()))
    assert source.classes == again.classes == unpacked.classes == CLASSES
    assert by_class(source) == by_class(again) == by_class(unpacked)
    said = [line for line in caplog.messages if "class folders" in line]
    assert said == [
        f"the 3 class folders in {path} are the classes of the images, which have no labels of "
        "their own"
    ]


def test_classes_over_several_tars(tmp_path: Path) -> None:
    for number in range(3):
        files = [(name, data) for name, data in photos().items() if f"/{number}" in name]
        write_tar(tmp_path / f"{number}.tar", files[number:])
    source = open_source(tmp_path)
    assert source.classes == CLASSES and len(source) == 6
    assert all(photos()[f"{name}/2.jpg"] in by_class(source) for name in CLASSES[2:])
    assert by_class(source)[photos()["newt/1.jpg"]] == "newt"


def test_labels_of_their_own_win_over_class_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [("cat/1.jpg", b"a"), ("cat/1.cls", b"1"), ("dog/1.jpg", b"b"), ("dog/1.cls", b"0")]
    with caplog.at_level(logging.INFO, "patchmill"):
        source = open_source(write_tar(tmp_path / "x.tar", files))
    assert source.labels is not None and source.labels.tolist() == [1, 0]
    assert source.classes == ["0", "1"]
    assert not caplog.messages


def test_some_with_labels_of_their_own_and_some_in_folders(tmp_path: Path) -> None:
    files = [("cat/1.jpg", b"a"), ("cat/1.cls", b"1"), ("dog/1.jpg", b"b")]
    with pytest.raises(MillError, match=r"1 of 2 samples of .*x.tar have no label, first 'dog/1"):
        open_source(write_tar(tmp_path / "x.tar", files))


def test_one_folder_is_no_class(tmp_path: Path) -> None:
    write_samples(tmp_path / "x.tar", range(4), labels=False)
    source = open_source(tmp_path / "x.tar")
    assert source.labels is None and source.classes == []


def test_images_beside_class_folders_are_said_and_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [*photos().items(), ("stray.jpg", b"x")]
    with caplog.at_level(logging.WARNING, "patchmill"):
        source = open_source(write_tar(tmp_path / "x.tar", files))
    assert source.labels is None and len(source) == 10
    assert "have no labels: some lie in class folders, and others outside, in none" in caplog.text


def test_samples_and_fingerprint_stay_as_they_were_without_labels(tmp_path: Path) -> None:
    """A run on the images of such a tar goes on: ids and fingerprint are those of before."""
    path = write_tar(tmp_path / "x.tar", photos().items())
    source = open_source(path)
    contents = shard_index.scan_shard(path)
    assert [source.locate(i)[1] for i in range(9)] == [s.offset for s in contents.samples]
    of_the_shard = shard_index.list_fingerprint(contents.samples)
    assert source.fingerprint == hashlib.sha256(of_the_shard.encode()).hexdigest()[:16]


def test_indexes_of_older_versions_are_made_again(tmp_path: Path, cache_folder: Path) -> None:
    """Their cached files, which know no folders, have another kind."""
    path = write_tar(tmp_path / "x.tar", photos().items())
    open_source(path)
    for file in (cache_folder / "shards").glob("*.s*"):
        kind = {".set": set_index.KIND, ".shard": set_index.SCANNED}[file.suffix]
        old = columns.read(file, kind)
        content = {
            name: column
            for name, column in old.columns.items()
            if name not in ("labels", "folders", "folder_names", "folder_starts")
        }
        older = {".set": "shards index 1", ".shard": "shard index 1"}[file.suffix]
        columns.write(file, older, content, old.meta | {"classes": []})
    assert open_source(path).classes == CLASSES


def test_an_index_beside_an_unlabelled_shard_of_an_older_version(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", photos().items())
    made = shard_index.build_index(
        str(path), shard_index.scan_shard(path), os.stat(path).st_size, os.stat(path).st_mtime_ns
    )
    content = {name: made[name] for name in ("offsets", "sizes")}
    columns.write(Path(shard_index.index_path(path)), shard_index.KIND, content, made.meta)
    source = open_source(path)
    assert source.labels is None and len(source) == 9


# -------------------------------------------------------------------------------------- tar of tars


def test_tars_in_a_tar_are_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tar_of_tars(tmp_path / "ILSVRC2012_img_train.tar")
    with caplog.at_level(logging.INFO, "patchmill"):
        source = open_source(path)
    assert isinstance(source, Shards) and source.classes == WNIDS
    assert source.labels is not None and source.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [source.read(i) for i in range(9)] == [photo(n) for n in range(9)]
    offset = source.locate(4)[1]
    assert source.where(4) == f"{path}: n01443537_1.JPEG at byte {offset}"
    assert path.read_bytes()[offset : offset + len(photo(4))] == photo(4)


def test_labels_in_the_inner_tars_win(tmp_path: Path) -> None:
    inner = {f"{n}.tar": tar_of({"1.jpg": image(n), "1.cls": b"7"}) for n in range(2)}
    source = open_source(write_tar(tmp_path / "x.tar", inner.items()))
    assert source.labels is not None and source.labels.tolist() == [7, 7]


def test_a_tar_beside_the_images_of_a_shard_is_left_alone(tmp_path: Path) -> None:
    frames = tar_of({"1.jpg": b"frame"})
    files = [("a.jpg", b"x"), ("a.frames.tar", frames), ("b.tar", frames)]
    source = open_source(write_tar(tmp_path / "x.tar", files))
    assert [source.read(i) for i in range(len(source))] == [b"x"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (tar_of({"1.jpg": b"x" * 2000})[:1024], "holds 'n9.tar', which is truncated"),
        (tar_of({"1.jpg": b"x" * 600})[:1536], "holds 'n9.tar', which is truncated"),
        (b"", "holds 'n9.tar', which is truncated"),
        (b"text" * 500, "holds 'n9.tar', which is damaged: there is no header"),
    ],
)
def test_damaged_inner_tars(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tar_of_tars(tmp_path / "x.tar", **{"n9.tar": content, "n8.tar": tar_of({"1.jpg": b"y"})})
    with pytest.raises(MillError, match=f"the shard .*x.tar {complaint}") as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def test_class_tars_in_a_folder(tmp_path: Path) -> None:
    """The training images as the outer tar is unpacked."""
    for place, wnid in enumerate(WNIDS):
        write_tar(tmp_path / f"{wnid}.tar", [(f"{wnid}_{n}.JPEG", photo(place)) for n in range(2)])
    source = open_source(tmp_path)
    assert source.classes == WNIDS
    assert source.labels is not None and source.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_images_for_training_and_validation_are_not_mixed(tmp_path: Path) -> None:
    tar_of_tars(tmp_path / "ILSVRC2012_img_train.tar")
    write_tar(tmp_path / "ILSVRC2012_img_val.tar", [("ILSVRC2012_val_00000001.JPEG", photo(1))])
    with pytest.raises(MillError, match=r"for training and for validation: name one of the tars"):
        open_source(tmp_path)


# ------------------------------------------------------------------------------------ lists beside


def validation(folder: Path) -> Path:
    names = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, 5)]
    path = folder / "ILSVRC2012_img_val.tar"
    return write_tar(path, [(name, photo(n)) for n, name in enumerate(names)])


LISTS = {
    "val.txt": [
        f"ILSVRC2012_val_{n:08d}.JPEG {w}" for n, w in ((4, WNIDS[0]), (3, WNIDS[2]))
    ]
    + [f"val/ILSVRC2012_val_{n:08d}.JPEG {w}" for n, w in ((1, WNIDS[1]), (2, WNIDS[0]))],
    "val.csv": ["path,label"]
    + [f"ILSVRC2012_val_{n:08d}.JPEG,{w}" for n, w in enumerate(
        [WNIDS[1], WNIDS[0], WNIDS[2], WNIDS[0]], 1
    )],
    "ILSVRC2012_img_val.tsv": [
        f"ILSVRC2012_val_{n:08d}\t{w}"
        for n, w in enumerate([WNIDS[1], WNIDS[0], WNIDS[2], WNIDS[0]], 1)
    ],
    "LOC_val_solution.csv": ["ImageId,PredictionString"]
    + [
        f"ILSVRC2012_val_{n:08d},{w} 85 1 499 272 {w} 1 2 3 4"
        for n, w in enumerate([WNIDS[1], WNIDS[0], WNIDS[2], WNIDS[0]], 1)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_labels_of_imagenets_validation_images(tmp_path: Path, name: str) -> None:
    path = validation(tmp_path)
    assert open_source(path).labels is None
    (tmp_path / name).write_text("\n".join(LISTS[name]) + "\n")
    for _ in range(2):
        source = open_source(path)
        assert source.classes == WNIDS
        assert source.labels is not None and source.labels.tolist() == [1, 0, 2, 0]


def test_class_numbers_in_a_list(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "photos.tar", [(f"{n}.jpg", photo(n)) for n in range(3)])
    (tmp_path / "photos.txt").write_text("0.jpg 2\n1.jpg 0\n2.jpg 2\nother.jpg 4\n")
    source = open_source(path)
    assert source.classes == [str(n) for n in range(5)]
    assert source.labels is not None and source.labels.tolist() == [2, 0, 2]


def test_names_and_labels_with_spaces(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [(f"my photo {n}.jpg", photo(n)) for n in range(2)])
    (tmp_path / "x.csv").write_text(
        'name,label,by\nmy photo 0.jpg,great owl,me\n"my photo 1.jpg",emu\n'
    )
    assert open_source(path).classes == ["emu", "great owl"]


def test_a_changed_list_is_read_again(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "photos.tar", [(f"{n}.jpg", photo(n)) for n in range(2)])
    listed = tmp_path / "photos.csv"
    for names in (["a", "b"], ["b", "c"]):
        listed.write_text("".join(f"{n}.jpg,{name}\n" for n, name in enumerate(names)))
        backdate(listed)
        os.utime(listed, (len(names[0] + names[1]) * ord(names[1]),) * 2)
        assert open_source(path).classes == names
    listed.unlink()
    assert open_source(path).labels is None


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (
            "0.jpg cat\n",
            r"photos.txt has no label for 1 of the 2 images in .*, first '1': complete",
        ),
        ("0.jpg cat\n1.jpg\n", r"photos.txt has no label for 1 of the 2 images in .*, first '1': "),
        ("0.jpg 1\n1.jpg 99999999999999999999\n", "more than 64 bits"),
    ],
)
def test_bad_lists(tmp_path: Path, lines: str, complaint: str) -> None:
    path = write_tar(tmp_path / "photos.tar", [(f"{n}.jpg", photo(n)) for n in range(2)])
    (tmp_path / "photos.txt").write_text(lines)
    with pytest.raises(MillError, match=complaint):
        open_source(path)


def test_a_file_that_is_no_list_of_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tar(tmp_path / "photos.tar", [(f"{n}.jpg", photo(n)) for n in range(2)])
    (tmp_path / "photos.txt").write_text("Photos of my garden.\n\nTaken in 2024\n")
    with caplog.at_level(logging.WARNING, "patchmill"):
        assert open_source(path).labels is None
    assert "photos.txt is not a list of labels: it names none of the images" in caplog.text


def test_the_numbers_of_the_development_kit_are_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n361\n171\n822\n")
    with caplog.at_level(logging.WARNING, "patchmill"):
        assert open_source(validation(tmp_path)).labels is None
    assert "validation_ground_truth.txt numbers classes in another order: put a list" in caplog.text
