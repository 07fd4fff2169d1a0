"""Data sets with `__len__` and `__getitem__`: pixels of their items, labels, threads, faults."""

from __future__ import annotations

import errno
import io
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import helpers_prepare as making
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset

from patchmill import loaders
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.lists.path_list import Paths

PIXELS = np.stack([making.pixels(i) for i in range(6)])
EVAL = "eval(size=16, short_side=16)"


class Dataset:
    """Items from a function; nothing else is known of it."""

    def __init__(self, items: Any, count: int = 6, **attributes: Any) -> None:
        self._items, self._count = items, count
        self.__dict__ |= attributes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._items(index)


def png(pixels: np.ndarray) -> bytes:
    return making.by_pil(Image.fromarray(pixels), "PNG")


FORMS: dict[str, Any] = {
    "array": PIXELS,
    "list of arrays": list(PIXELS),
    "PIL images": [Image.fromarray(one) for one in PIXELS],
    "tensor": torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
    "encoded": [png(one) for one in PIXELS],
    "opened files": [Image.open(io.BytesIO(png(one))) for one in PIXELS],
    "mappings": [{"id": i, "img": one, "label": i} for i, one in enumerate(PIXELS)],
    "tuples": [(one, i) for i, one in enumerate(PIXELS)],
    "tensors with labels": TensorDataset(
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.arange(6)
    ),
    "object": Dataset(lambda i: (Image.fromarray(PIXELS[i]), i)),
    "undecoded": [{"bytes": png(one), "path": None} for one in PIXELS],
}


@pytest.mark.parametrize("form", FORMS)
def test_items_keep_their_pixels(form: str):
    source = open_source(FORMS[form])
    assert len(source) == 6 and "\n" not in source.name
    for index in (5, 0, 3):
        assert (decode(source.read(index)) == PIXELS[index]).all()
    labelled = form in ("mappings", "tuples", "tensors with labels", "object")
    assert (None if source.labels is None else source.labels.tolist()) == (
        list(range(6)) if labelled else None
    )
    assert source.classes == ([str(i) for i in range(6)] if labelled else [])


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)),
    st.sampled_from((None, 1, 3, 4)),
)
def test_arrays_of_any_shape(plane: np.ndarray, channels: int | None):
    if channels is None:
        wanted, array = np.repeat(plane[:, :, None], 3, axis=2), plane
    else:
        array = np.stack([plane + np.uint8(c) for c in range(channels)], axis=2)
        wanted = array[:, :, :3] if channels > 1 else np.repeat(array, 3, axis=2)
    assert (decode(open_source([array]).read(0)) == wanted).all()
    if channels:
        tensor = torch.from_numpy(array).permute(2, 0, 1)
        if tensor.shape[0] == channels:
            assert (decode(open_source([tensor]).read(0)) == wanted).all()


def test_modes_of_pil_are_converted_as_the_decoder_does():
    grey = Image.fromarray(PIXELS[0]).convert("L")
    for image in (grey, grey.convert("1"), grey.convert("RGBA"), grey.convert("P")):
        wanted = decode(making.by_pil(image, "PNG"))
        assert (decode(open_source([image]).read(0)) == wanted).all()


def test_batches_are_those_of_the_same_files(tmp_path: Path):
    files = {f"{i}.png": png(one) for i, one in enumerate(PIXELS)}
    folder = making.write_folder(tmp_path / "files", files)
    for form in ("array", "PIL images", "object"):
        ours, theirs = (
            loaders.build(data, "simclr(size=16)", 3, workers=2) for data in (FORMS[form], folder)
        )
        for one, two in zip(ours, theirs, strict=True):
            assert one.ids.tolist() == two.ids.tolist()
            for group in one.views:
                assert one.views[group].equal(two.views[group])
        if form == "object":
            assert one.labels.tolist() == one.ids.tolist()


def test_pixels_are_prepared(tmp_path: Path):
    making.prepare(open_source(FORMS["tuples"]), tmp_path / "x.beton", "beton", seed=None)
    made = open_source(tmp_path / "x.beton")
    assert all((decode(made.read(i)) == PIXELS[i]).all() for i in range(6))
    assert made.labels is not None and made.labels.tolist() == list(range(6))


# ------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("name", ["targets", "labels", "_labels"])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_labels_of_an_attribute_need_no_item(name: str, kind: Any):
    read = []

    def item(index: int) -> Any:
        read.append(index)
        return PIXELS[index], index

    names = ["a", "b", "c"]
    dataset = Dataset(item, **{name: kind([0, 2, 1, 0, 2, 1]), "classes": names})
    source = open_source(dataset)
    read.clear()
    assert source.labels is not None and source.labels.tolist() == [0, 2, 1, 0, 2, 1]
    assert source.classes == names and not read


def test_labels_of_items_are_noted_as_they_are_read():
    reads = []

    def item(index: int) -> Any:
        reads.append(index)
        return PIXELS[0], index % 3

    source = open_source(Dataset(item, 100))
    seen = set(reads)
    assert len(seen) < 50
    ids = np.array([i for i in range(100) if i not in seen][:3])
    for id in ids.tolist():
        source.read(id)
    reads.clear()
    labels = source.labels_of(ids)
    assert labels is not None and labels.tolist() == (ids % 3).tolist() and not reads
    assert source.labels is not None and source.labels.tolist() == [i % 3 for i in range(100)]
    reads.clear()
    assert source.labels is not None and source.classes == ["0", "1", "2"] and not reads


# --------------------------------------------------------------------------------- other libraries


def test_image_folders_are_read_by_path(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = making.photos(tmp_path / "photos", 6)
    to_tensor = torchvision.transforms.ToTensor()
    with caplog.at_level("INFO", "patchmill"):
        source = open_source(torchvision.datasets.ImageFolder(str(folder), transform=to_tensor))
    plain = open_source(folder)
    assert isinstance(source, Paths) and "transform of ImageFolder is ignored" in caplog.text
    assert [source.read(i) for i in range(6)] == [plain.read(i) for i in range(6)]
    assert source.labels is not None and plain.labels is not None
    assert source.labels.tolist() == plain.labels.tolist() and source.classes == plain.classes


def test_image_folders_with_a_loader_of_their_own_are_read_by_it(tmp_path: Path):
    folder = making.photos(tmp_path / "photos", 3)
    dataset = torchvision.datasets.ImageFolder(str(folder), loader=lambda path: PIXELS[0])
    source = open_source(dataset)
    assert (decode(source.read(2)) == PIXELS[0]).all()
    assert source.labels is not None and source.labels.tolist() == [0, 1, 2]
    assert source.classes == ["class0", "class1", "class2"]


def test_subsets(tmp_path: Path):
    folder = torchvision.datasets.ImageFolder(str(making.photos(tmp_path / "photos", 6)))
    source = open_source(Subset(folder, [5, 1]))
    assert source.read(0) == open_source(folder).read(5) and source.labels is not None
    assert source.labels.tolist() == [2, 0] and len(source) == 2


def test_datasets_of_hugging_face_are_not_decoded_there():
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    features = datasets.Features(
        {"pic": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    encoded = [making.jpeg(i) for i in range(6)]
    rows = {"pic": [{"bytes": one, "path": None} for one in encoded], "label": [0, 1, 1, 0, 1, 0]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    for one in (dataset, dataset.with_format("torch")):
        source = open_source(one)
        assert [source.read(i) for i in range(6)] == encoded
        assert source.labels is not None and source.labels.tolist() == [0, 1, 1, 0, 1, 0]
        assert source.classes == ["cat", "dog"] and source.where(3) == "row 3 of Dataset of 6 rows"
    chosen = open_source(dataset.select([4, 0]))
    assert chosen.read(0) == encoded[4] and chosen.labels is not None
    assert chosen.labels.tolist() == [1, 0]
    for data, sentence in (
        (datasets.DatasetDict(train=dataset), r"holds several things \('train'\)"),
        (dataset.to_iterable_dataset(), "without streaming=True"),
        (dataset.remove_columns("pic"), "no column of images; its columns are: label"),
    ):
        with pytest.raises(MillError, match=sentence):
            open_source(data)


# ------------------------------------------------------------------------------ threads and pickles


@pytest.mark.parametrize("safe", [None, False, True])
def test_one_thread_at_a_time_reads_an_unknown_data_set(safe: bool | None):
    inside, most, lock = 0, 0, threading.Lock()

    def item(index: int) -> Any:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.005)
        with lock:
            inside -= 1
        return PIXELS[0]

    attributes = {} if safe is None else {"thread_safe": safe}
    source = open_source(Dataset(item, 64, **attributes))
    threads = [
        threading.Thread(target=lambda: [source.read(i) for i in range(8)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most > 1) == bool(safe)


def test_sources_can_be_pickled():
    source = open_source(TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2)))
    copied = pickle.loads(pickle.dumps(source))
    assert copied.read(2) == source.read(2) and copied.fingerprint == source.fingerprint


FINGERPRINT = """
import numpy as np
from patchmill.loaders.sources import open_source
print(open_source([(np.full((8, 8, 3), i, np.uint8), i) for i in range(40)]).fingerprint)
"""


def test_fingerprints_are_equal_in_other_processes_and_tell_contents_apart():
    items = [(np.full((8, 8, 3), i, np.uint8), i) for i in range(40)]
    own = open_source(items).fingerprint
    ran = subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, text=True)
    assert ran.stdout.strip() == own, ran.stderr
    items[0] = (np.full((8, 8, 3), 99, np.uint8), 0)
    assert open_source(items).fingerprint != own != open_source(items[:39]).fingerprint


# ------------------------------------------------------------------------------------------- faults


def test_items_that_cannot_be_read_go_to_the_ledger(tmp_path: Path):
    def item(index: int) -> Any:
        if index == 0:
            raise KeyError("first")
        return b"no image" if index == 7 else PIXELS[0].astype(float) if index == 4 else PIXELS[0]

    ledger = tmp_path / "bad.jsonl"
    loader = loaders.build(Dataset(item, 20), EVAL, 20, ledger=ledger)
    (batch,) = list(loader)
    assert not {0, 4, 7} & set(batch.ids.tolist())
    text = ledger.read_text()
    assert "the data set raised KeyError: 'first'" in text
    assert "item 7 of Dataset" in text and "a float64 array [40, 60, 3]" in text


@pytest.mark.parametrize(
    "lack", [MemoryError(), OSError(errno.EMFILE, "Too many open files")], ids=["memory", "files"]
)
def test_items_for_which_the_machine_lacks_something_are_not_bad(lack: Exception):
    lacking = []

    def item(index: int) -> Any:
        seen.add(index)
        if lacking and index == max(set(range(100)) - built):
            raise lack
        return PIXELS[0], index % 3

    seen: set[int] = set()
    loader = loaders.build(Dataset(item, 100), EVAL, 100)
    built = seen.copy()
    lacking.append(True)
    with pytest.raises(MillError, match=r"no memory for|no more files can be opened for"):
        list(loader)
    with pytest.raises(type(lack)):
        _ = loader.source.labels
    lacking.clear()
    (batch,) = list(loader)
    assert sorted(batch.ids.tolist()) == list(range(100)) and len(loader.ledger) == 0
    assert loader.source.labels.tolist() == [i % 3 for i in range(100)]


def raising(index: int) -> Any:
    raise RuntimeError("line one\nline two")


class Table(Dataset):
    """Has the face of a pandas DataFrame."""

    columns, iloc = ("path", "label"), None

    def __init__(self) -> None:
        super().__init__(raising)


class Unsized:
    def __len__(self) -> int:
        raise TypeError("no length here")

    def __getitem__(self, index: int) -> Any:
        return PIXELS[0]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (torch.rand(4, 3, 8, 8), r"a float32 tensor \[3, 8, 8\]: build it without its transform"),
        (np.zeros((4, 8, 8, 3)), r"a float64 array \[8, 8, 3\]: build it without its transform"),
        (np.zeros((4, 8, 8, 7), np.uint8), r"a uint8 array \[8, 8, 7\]: items must hold a PIL"),
        ([1, 2, 3], "item 0 of the list is an object of type int: items must hold"),
        ([{"text": "a", "n": 1}], "item 0 of the list has no image among its keys text, n: items"),
        (Dataset(raising), "cannot read the items of the Dataset: .*RuntimeError: line one line"),
        (Dataset(raising, 0), "the Dataset has no items"),
        (Unsized(), "the Unsized has no length: no length here"),
        ({"train": [1], "test": [2]}, r"holds several things \('train', 'test'\).*data\['train'\]"),
        ((one for one in PIXELS), "type generator, which can be read once and in order only"),
        (iter([1]), "can be read once and in order only: give a folder, shards"),
        ({1, 2}, "type set, which has no length and no items by index"),
        (DataLoader([1, 2]), r"from a DataLoader, which makes batches: give .* loader\.dataset"),
        ([Image.fromarray(np.eye(8, dtype=np.float32))] * 4, "its 32-bit pixels range from 0 to 1"),
        (Table(), r"a Table does not say which columns .* list\(zip\(table\['path'\]"),
        (7, "from 7, which is not a data set: give a folder, shards"),
        (None, "from None, which is not a data set"),
        (b"bytes", "type bytes, which is not a data set"),
    ],
)
def test_one_sentence(data: Any, sentence: str):
    with pytest.raises(MillError, match=sentence) as caught:
        loaders.build(data, EVAL, 2)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
