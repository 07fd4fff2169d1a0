"""An LMDB database of encoded images as a source: key -> the bytes of an image file.

Keys are image names, such as `cat/1.jpg`: folders in them are classes, as in an unpacked folder;
keys without folders, as in LSUN, mean no labels. If keys begin with `image-`, labels are the
numbers or names under `label-`. Nothing is unpickled: databases whose values are pickles, as
written by many scripts like folder2lmdb, are refused.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.files import columns, mapped, stamps
from patchmill.loaders.sources.archives import lmdb_pages
from patchmill.loaders.sources.archives.listing import Listing, open_listing
from patchmill.loaders.sources.lists import labels as class_labels
from patchmill.loaders.sources.numbered import NumberedSource
from patchmill.loaders.sources.reopened import Reopened

_KIND = "lmdb index 1"
_RACY_NS = 2_000_000_000
_IMAGE, _LABEL = b"image-", b"label-"
_COUNTS = (b"num-samples", b"num_samples", b"length", b"len")  # keys that are not images
_CHECKED = 16  # values inspected when a database is listed
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P6", b"P5")
_STEP = 1 << 16  # keys between reports of progress
_LAYOUTS = "docs/formats.md lists the supported layouts, and how to convert others"


def is_lmdb(data: str | Path) -> bool:
    path = os.path.expanduser(str(data))
    if os.path.isdir(path):
        return os.path.isfile(os.path.join(path, "data.mdb"))
    return path.endswith((".lmdb", ".mdb"))


class Lmdb(Reopened, NumberedSource):
    """All images of a database, a folder with `data.mdb` or a file, in the order of their keys."""

    def __init__(self, data: str | Path) -> None:
        self.name = str(data)
        self._path = os.path.realpath(os.path.expanduser(self.name))
        self.path = _file(self._path)
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise MillError(f"cannot open {self.name}: {error.strerror}") from None
        environment = _environment(self.name, self._path)
        state = [status.st_mtime_ns, *_check_complete(self.name, environment, status.st_size)]
        environment.guard()
        index = open_listing(
            self.name,
            _KIND,
            self._path,
            state,
            lambda: _list(self.name, environment),
            sure=time.time_ns() - status.st_mtime_ns > _RACY_NS,
            dtypes={},
        )
        self._keys, self._starts = index["names"], index["starts"]
        self.fingerprint: str = index.meta["fingerprint"]
        self.classes: list[str] = index.meta["classes"]
        self.labels: np.ndarray | None = index.columns.get("labels")
        self._environment = environment
        self._stamp = stamps.of_numbers(environment.changed, *state[1:])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, index: int) -> bytes:
        import lmdb

        try:
            with self._environment.whole(), self._environment.begin() as transaction:
                data = transaction.get(self._key(index))
        except lmdb.Error as error:
            raise OSError(f"it cannot be read: {error}") from None
        if data is None:
            raise OSError("the database no longer has this key: it was changed since it was opened")
        return data

    def stamp(self, index: int) -> int:
        return self._stamp

    def where(self, index: int) -> str:
        return f"{self._path}: {self._key(index).decode('utf-8', 'backslashreplace')}"

    def _key(self, index: int) -> bytes:
        return columns.item(self._keys, self._starts, index)


# ------------------------------------------------------------------------------------- the database

_environments: WeakValueDictionary[str, Any] = WeakValueDictionary()
_lock = threading.Lock()


class _Environment:
    """An open database; a process may have only one for each file.

    Without locks and mapped read-only, it can be used after a fork.
    """

    def __init__(self, path: str) -> None:
        import lmdb

        self._path = _file(path)
        self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        weakref.finalize(self, os.close, self._file)
        self.changed = os.fstat(self._file).st_mtime_ns
        lmdb_pages.check_start(self._file)
        self._environment = lmdb.open(
            path,
            subdir=self._path != path,
            readonly=True,
            create=False,
            lock=False,
            readahead=False,
            max_spare_txns=64,
        )
        self.begin, self.stat, self.info = (
            self._environment.begin,
            self._environment.stat,
            self._environment.info,
        )
        info, stat = self.info(), self.stat()
        self.needed = (info["last_pgno"] + 1) * stat["psize"]  # bytes

    def check_pages(self) -> None:
        """Raise lmdb_pages.Damaged if the library could crash, or read beyond its map."""
        lmdb_pages.check(self._file)

    def guard(self) -> None:
        """Guard the map of a file that is complete now."""
        mapped.guard_library(self, self._path, self._file, self.needed)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """MillError if the file is truncated before or during a read."""
        mapped.check((self._path,))
        try:
            yield
        finally:
            mapped.check((self._path,))


def _file(path: str) -> str:
    """The data file of a database, whose path may be that of a folder."""
    return os.path.join(path, "data.mdb") if os.path.isdir(path) else path


def _environment(name: str, path: str) -> Any:
    """Open the database at a path; MillError if it cannot be opened."""
    try:
        import lmdb
    except ImportError:
        raise MillError(f"{name} needs the lmdb package: pip install lmdb") from None
    with _lock:
        environment = _environments.get(path)
        if environment is None:
            try:
                environment = _Environment(path)
            except lmdb_pages.Damaged as error:
                raise MillError(f"cannot open {name}: {error}; fetch it again") from None
            except (lmdb.Error, OSError) as error:
                problem = getattr(error, "strerror", None) or str(error).removeprefix(f"{path}: ")
                raise MillError(f"cannot open {name}: {problem}") from None
            _environments[path] = environment
        return environment


def _check_complete(name: str, environment: Any, file_bytes: int) -> list[int]:
    """Last transaction number, entries and bytes; MillError if the file is truncated."""
    if file_bytes < environment.needed:
        raise MillError(
            f"{name} is truncated: it has {file_bytes:,} of {environment.needed:,} bytes; fetch it "
            "again"
        )
    return [environment.info()["last_txnid"], environment.stat()["entries"], file_bytes]


# -------------------------------------------------------------------------------------- the listing


def _list(name: str, environment: Any) -> Listing:
    import lmdb

    try:
        environment.check_pages()
        with environment.whole(), environment.begin() as transaction:
            keys = _read_keys(name, transaction, environment.stat()["entries"])
            images = [key for key in keys if key.startswith(_IMAGE)]
            labelled = None
            if images:
                labelled = _read_labels(name, transaction, images)
            else:
                images = [key for key in keys if not _is_reserved(key)]
            if not images:
                raise MillError(f"there are no images in {name}, which has {len(keys)} keys")
            _check_values(name, transaction, images)
    except lmdb_pages.Damaged as error:
        raise MillError(f"{name} is damaged: {error}; fetch it again") from None
    except (lmdb.Error, OSError) as error:
        raise MillError(f"cannot read {name}: {error}") from None
    return Listing(images, {}, labelled)


def _read_keys(name: str, transaction: Any, entries: int) -> list[bytes]:
    keys = []
    with track(f"listing {name}", entries) as advance:
        for key in transaction.cursor().iternext(keys=True, values=False):
            keys.append(key)
            if len(keys) % _STEP == 0:
                advance(_STEP)
    return keys


def _is_reserved(key: bytes) -> bool:
    return key in _COUNTS or (key.startswith(b"__") and key.endswith(b"__"))


def _read_labels(
    name: str, transaction: Any, images: list[bytes]
) -> tuple[list[str], np.ndarray] | None:
    """Classes and labels from the `label-` entries; None if there are none."""
    texts = [transaction.get(_LABEL + key.removeprefix(_IMAGE)) for key in images]
    if any(text is None for text in texts):
        return None
    labels = [text.decode("utf-8", "backslashreplace").strip() for text in texts]
    if len(set(labels)) > len(labels) // 2 and not all(map(str.isdecimal, labels)):
        return None  # text to recognise, not classes
    return class_labels.numbered(name, labels)


def _check_values(name: str, transaction: Any, images: list[bytes]) -> None:
    """Raise a MillError unless some of the values are images."""
    step = max(len(images) // _CHECKED, 1)
    values = {key: transaction.get(key) or b"" for key in images[::step]}
    if any(value.startswith(_MAGIC) for value in values.values()):
        return
    key, value = next(iter(values.items()))
    is_pickle = value[:1] == b"\x80" and value[1:2] in (b"\2", b"\3", b"\4", b"\5")
    kind = "Python pickles, which are never loaded here" if is_pickle else "not image files"
    shown = key.decode("utf-8", "backslashreplace")
    raise MillError(f"the values of {name} are {kind} (first under {shown!r}): {_LAYOUTS}")
