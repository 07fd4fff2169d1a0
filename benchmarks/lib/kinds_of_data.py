"""The same images in formats other than a folder: Parquet files, a list, data sets, archives.

The tar of tars has the layout of ImageNet's training images.
"""

from __future__ import annotations

import csv
import importlib.util
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import Source

_ROWS = 100  # of a row group, as in the files of the Hugging Face hub


class PilFiles:
    """A data set as in many projects: each item is a file opened and decoded by PIL."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Image.Image:
        with Image.open(self._paths[index]) as image:
            return image.convert("RGB")


def write(files: Source, folder: Path) -> dict[str, Any]:
    """Kind and data, for `loaders.build`; kinds whose packages are missing are skipped."""
    paths = [files.where(i) for i in range(len(files))]
    folder.mkdir()
    kinds: dict[str, Any] = {"csv": _list(paths, folder), "PIL items": PilFiles(paths)}
    kinds |= {
        "zip": _zip(files, folder / "all.zip"),
        "tar of tars": _tar(files, folder / "all.tar"),
    }
    if importlib.util.find_spec("lmdb"):
        kinds["lmdb"] = _lmdb(files, folder / "all.lmdb")
    if importlib.util.find_spec("pyarrow"):
        for name, options in (("parquet", {"compression": "none"}), ("parquet, snappy", {})):
            kinds[name] = _parquet(files, folder / f"{name.replace(', ', '-')}.parquet", **options)
    if importlib.util.find_spec("datasets") and "parquet" in kinds:
        kinds["datasets.Dataset"] = _dataset(kinds["parquet"], folder / "datasets")
    return kinds


def _list(paths: list[str], folder: Path) -> str:
    with open(folder / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path"], *([path] for path in paths)])
    return str(folder / "list.csv")


def _member(files: Source, id: int) -> str:
    """`copy0001/00000042.jpg`, the path of an image in its class folder."""
    return "/".join(Path(files.where(id)).parts[-2:])


def _zip(files: Source, path: Path) -> str:
    with zipfile.ZipFile(path, "w") as archive:  # uncompressed: JPEGs do not get smaller
        for id in range(len(files)):
            archive.writestr(_member(files, id), files.read(id))
    return str(path)


def _tar(files: Source, path: Path) -> str:
    """A tar of tars, one per folder of images."""
    folders = {Path(files.where(id)).parent for id in range(len(files))}
    with tarfile.open(path, "w") as outer:
        for folder in sorted(folders):
            inner = path.with_name(f"{folder.name}.tar")
            with tarfile.open(inner, "w") as images:
                for file in sorted(folder.iterdir()):
                    images.add(file, file.name)
            outer.add(inner, inner.name)
            inner.unlink()
    return str(path)


def _lmdb(files: Source, path: Path) -> str:
    import lmdb

    with lmdb.open(str(path), map_size=1 << 40) as environment:
        with environment.begin(write=True) as transaction:
            for id in range(len(files)):
                transaction.put(_member(files, id).encode(), files.read(id))
    return str(path)


def _parquet(files: Source, path: Path, **options: Any) -> str:
    import pyarrow
    from pyarrow import parquet

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", kind)])
    if options:
        options["use_dictionary"] = False
    with parquet.ParquetWriter(path, schema, **options) as writer:
        for start in range(0, len(files), _ROWS):
            ids = range(start, min(start + _ROWS, len(files)))
            rows = [{"bytes": files.read(id), "path": files.where(id)} for id in ids]
            writer.write_table(pyarrow.table({"image": pyarrow.array(rows, kind)}, schema))
    return str(path)


def _dataset(parquet: str, cache: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        opened = datasets.Dataset.from_parquet(parquet, cache_dir=str(cache))
    except OSError as error:
        raise MillError(f"datasets cannot read {parquet}: {error}") from None
    return opened.cast_column("image", datasets.Image())
