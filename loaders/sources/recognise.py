"""Recognise the kind of the user's data: one function for each kind, tried in turn."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmill.loaders.common.arguments import whole_number
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief
from patchmill.loaders.files import regular_files
from patchmill.loaders.sources import Source

if TYPE_CHECKING:
    from patchmill.loaders.sources.stream.source import StreamSource
    from patchmill.loaders.sources.stream.stream import Stream

_MEMBERS = ("where", "fingerprint", "name", "labels", "classes")  # of a source, besides read

Opened = Any  # Source | StreamSource


def open_any(data: Any) -> Opened:
    """Open `data` as a source; MillError for anything that holds no images."""
    kinds = BY_NAME if isinstance(data, str | Path) else OBJECTS
    for kind in kinds:
        if (source := kind(data)) is not None:
            return source
    raise AssertionError("the last kind accepts everything")


# ------------------------------------------------------------------------------------------ by name


def _scenes(data: str | Path) -> Source | None:
    from patchmill.loaders.common import calls

    text = str(data)
    is_call = text == "scenes" or text.startswith(("scenes:", "scenes("))
    if not (isinstance(data, str) and is_call):
        return None
    from patchmill.loaders.sources.scenes.source import Scenes

    _, colon, count = text.partition(":")
    if not text.startswith("scenes:"):
        return calls.call(text, {"scenes": Scenes}, "source")
    number = whole_number(count)
    if not colon or number is None:
        raise MillError(f"cannot parse {brief(text)}: write scenes:10000 for ten thousand scenes")
    return Scenes(count=number)


def _special_file(data: str | Path) -> None:
    """MillError for a pipe, a socket or a device: opening one can block for ever."""
    try:
        status = os.stat(os.path.expanduser(data))
    except (OSError, ValueError):  # perhaps not a path: other kinds report what is wrong
        return
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        kind = regular_files.kind_of(status)
        raise MillError(f"{brief(str(data))} is {kind}: images are read from files and folders")


def _beton(data: str | Path) -> Source | None:
    if not str(data).endswith(".beton"):
        return None
    from patchmill.loaders.sources.beton.source import Beton

    return Beton(data)


def _zip(data: str | Path) -> Source | None:
    from patchmill.loaders.sources.archives import zip_file

    return zip_file.Zip(data) if zip_file.split_path(data) else None


def _lmdb(data: str | Path) -> Source | None:
    from patchmill.loaders.sources.archives import lmdb_file

    return lmdb_file.Lmdb(data) if lmdb_file.is_lmdb(data) else None


def _list(data: str | Path) -> Source | None:
    from patchmill.loaders.sources.lists import path_list

    text = str(data)
    if not text.endswith(path_list.ENDINGS) or "://" in text or os.path.isdir(data):
        return None
    if text.endswith(".parquet"):
        from patchmill.loaders.sources.parquet import schema

        if not os.path.isfile(os.path.expanduser(text)) or schema.holds_images(text):
            return None
    return path_list.open_list(data)


def _parquet(data: str | Path) -> Source | None:
    from patchmill.loaders.sources.parquet import files

    if not files.are_parquet(str(data)):
        return None
    from patchmill.loaders.sources.parquet.source import Parquet

    return Parquet(data)


def _streamed_shards(data: Any) -> StreamSource | None:
    from patchmill.loaders.sources.shards import paths

    if not paths.are_shard_urls(data):
        return None
    from patchmill.loaders.sources.stream.stream import Stream

    return _open_stream(Stream(data))


def _shards(data: Any) -> Source | None:
    from patchmill.loaders.sources.shards import paths

    if not paths.are_shard_paths(data):
        return None
    from patchmill.loaders.sources.shards.source import Shards

    return Shards(data)  # type: ignore[return-value]  # its labels are read on demand


def _own(data: str | Path) -> Opened | None:
    """The source or data set made by a class or function that the user names."""
    from patchmill.loaders.sources import own_source

    return open_any(own_source.make(data)) if own_source.is_own(data) else None


def _unknown_file(data: str | Path) -> None:
    """MillError for a file of none of the other kinds."""
    if not os.path.isfile(os.path.expanduser(data)):
        return
    from patchmill.loaders.sources.shards import paths

    hint = ""
    if paths.is_image(str(data)):
        hint = "; for a few images, give a list of paths, as in loaders.build([...]), or a .csv"
    raise MillError(
        f"{brief(str(data))} is a single file of none of the kinds that hold many images: shards "
        f"(.tar), a .beton, .zip, .lmdb, .parquet, or a list (.csv, .tsv, .jsonl){hint}"
    )


def _folder(data: str | Path) -> Source:
    from patchmill.loaders.sources.folder import Folder

    return Folder(data)


# ------------------------------------------------------------------------------------------ objects


def _source(data: Any) -> Opened | None:
    if hasattr(data, "samples") and hasattr(data, "shards"):
        return _open_stream(data)
    complete = hasattr(data, "sample_count") and hasattr(data, "labels_of")
    if not complete and not (hasattr(data, "read") and hasattr(data, "__len__")):
        return None
    missing = [name for name in _MEMBERS if not _has(data, name)]
    if complete and not missing:
        return data  # already open; a stream's source has no length
    if missing and hasattr(data, "__getitem__"):
        return None
    if missing:
        raise MillError(
            f"the source {type(data).__name__} has no {' and no '.join(missing)}: "
            "docs/guides/own-source.md lists the members of a source"
        )
    from patchmill.loaders.sources.numbered import AdaptedSource

    return AdaptedSource(data)


def _has(data: Any, name: str) -> bool:
    """True for a member; properties, which may read all labels, are not evaluated."""
    in_class = getattr(type(data), name, None) is not None or name in vars(type(data))
    return in_class or hasattr(data, name)


def _paths(data: Any) -> Source | None:
    """Images in memory by path, or pairs of path and label."""
    if not isinstance(data, list | tuple):
        return None
    if not data:
        raise MillError("the list is empty: it must name images, shards or pairs of path and label")
    from patchmill.loaders.sources.lists import path_list
    from patchmill.loaders.sources.shards import paths

    first = data[0]
    if isinstance(first, list | tuple) and len(first) == 2 and isinstance(first[0], str | Path):
        return path_list.open_paths(data)
    named = isinstance(first, str | Path) and paths.is_image(str(first))
    return path_list.open_paths(data) if named else None


def _listed_shards(data: Any) -> Opened | None:
    if not isinstance(data, list | tuple) or not isinstance(data[0], str | Path):
        return None
    return _listed_parquet(data) or _streamed_shards(data) or _shards(data)


def _listed_parquet(data: Any) -> Source | None:
    from patchmill.loaders.sources.parquet import files

    if not all(isinstance(one, str | Path) and str(one).endswith(files.ENDING) for one in data):
        return None
    from patchmill.loaders.sources.parquet.source import Parquet

    return Parquet(data)


def _data_set(data: Any) -> Source:
    from patchmill.loaders.sources.objects.open_object import open_object

    return open_object(data)  # type: ignore[return-value]  # labels may be a property


def _open_stream(stream: Stream) -> StreamSource:
    from patchmill.loaders.sources.stream.source import StreamSource

    return StreamSource(stream)


BY_NAME: tuple[Callable[[Any], Opened | None], ...] = (
    _scenes,
    _special_file,
    _beton,
    _zip,
    _lmdb,
    _list,
    _parquet,
    _streamed_shards,
    _own,
    _shards,
    _unknown_file,
    _folder,
)
OBJECTS: tuple[Callable[[Any], Opened | None], ...] = (
    _source,
    _paths,
    _listed_shards,
    _data_set,
)
