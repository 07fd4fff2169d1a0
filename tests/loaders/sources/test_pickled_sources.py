"""Sources of open files pickle as what they were opened with, and so do loaders of them."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import helpers_shards
import numpy as np
import pytest
from PIL import Image

from patchmill.loaders import build
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.prepare import command
from patchmill.loaders.sources import open_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    images = []
    for number in range(4):
        file = io.BytesIO()
        Image.fromarray(np.full((16, 16, 3), 60 * number, np.uint8)).save(file, "PNG")
        images.append((f"{number}.png", file.getvalue()))
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        for name, content in images:
            file.writestr(name, content)
    helpers_shards.write_tar(folder / "a.tar", images)
    (folder / "images").mkdir()
    for name, content in images:
        (folder / "images" / name).write_bytes(content)
    command.main([str(folder / "images"), str(folder / "a.beton")])
    return folder


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.beton", "images", "pipe:cat {}/a.tar"])
def test_a_loader_of_an_opened_source_pickles(name: str, data: Path):
    is_stream = name.startswith("pipe:")
    source = open_data(name.format(data) if is_stream else str(data / name))
    loader = build(source, "eval(size=16, short_side=16)", 2, steps=2 if is_stream else None)
    restored = pickle.loads(pickle.dumps(loader))
    assert restored.source.fingerprint == source.fingerprint
    if not is_stream:
        assert [restored.source.read(i) for i in range(4)] == [source.read(i) for i in range(4)]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("notes.txt", "notes.txt' is a single file of none of the kinds that hold many images"),
        ("data-000000", "data-000000' is a single file"),
        ("one.jpg", "for a few images, give a list of paths"),
    ],
)
def test_a_file_of_no_kind_is_named_with_the_kinds(name: str, sentence: str, tmp_path: Path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(MillError) as raised:
        open_data(tmp_path / name)
    assert sentence in str(raised.value)
