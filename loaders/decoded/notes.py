"""Remember folders on disk that have held stores of decoded images, for `patchmill cache`."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded import places
from patchmill.loaders.decoded.spec import CacheSpec
from patchmill.loaders.files import cache, writing

_FOLDER = "decoded"  # in the cache folder: one file per folder, named by a hash of its path


def note(wanted: CacheSpec) -> None:
    """Remember the folder of a cache on disk."""
    if wanted.folder is None:
        return
    place = str(wanted.folder.resolve())
    name = hashlib.sha256(place.encode()).hexdigest()[:16]
    with contextlib.suppress(OSError, MillError):  # optional: `patchmill cache FOLDER` still works
        path = cache.folder(_FOLDER) / name
        if not path.exists():
            writing.write_atomic(path, place, writing.unique_name(path))


def known_folders() -> list[Path]:
    """The folder in RAM, and all remembered folders on disk."""
    with contextlib.suppress(OSError, ValueError):
        paths = sorted((cache.root() / _FOLDER).glob("[0-9a-f]" * 16))
        return [places.ram_folder(), *(Path(path.read_text()) for path in paths)]
    return [places.ram_folder()]
