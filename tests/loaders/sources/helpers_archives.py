"""Photos of three classes as a folder, and the same photos in archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from helpers_shards import backdate
from PIL import Image

CLASSES = ["cat", "dog", "newt"]
EACH = 3


def photo(number: int) -> bytes:
    """A small JPEG, another one for every number."""
    pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=80)
    return encoded.getvalue()


def photos() -> dict[str, bytes]:
    """Content by path, `cat/0.jpg`."""
    return {
        f"{name}/{number}.jpg": photo(place * EACH + number)
        for place, name in enumerate(CLASSES)
        for number in range(EACH)
    }


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return backdate(path)


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def write_lmdb(path: Path, entries: dict[str, bytes], subdir: bool = True) -> Path:
    import lmdb

    with lmdb.open(str(path), map_size=1 << 24, subdir=subdir) as environment:
        with environment.begin(write=True) as transaction:
            for key, value in entries.items():
                transaction.put(key.encode(), value)
    backdate(path / "data.mdb" if subdir else path)
    return path


def check_like_folder(source: Any, folder: Path) -> None:
    """The samples, labels, classes and fingerprint of the unpacked folder."""
    from patchmill.loaders.sources.folder import Folder

    unpacked = Folder(folder)
    assert len(source) == len(unpacked)
    assert [source.read(i) for i in range(len(source))] == [
        unpacked.read(i) for i in range(len(unpacked))
    ]
    assert source.classes == unpacked.classes
    assert (source.labels is None) == (unpacked.labels is None)
    if unpacked.labels is not None:
        assert source.labels.tolist() == unpacked.labels.tolist()
        assert source.labels.dtype == np.int64
    assert source.fingerprint == unpacked.fingerprint
