"""What of each image is foreground, for copy-paste: from the data itself, or from a file beside it.

    from patchmill.loaders import masks

    found = masks.open_masks(source)  # None where there are no masks
    found.plane(3)  # uint8 [height, width] of any size, or None: leave the image as it is
    found.share(3)  # how much of the image is foreground, for the choice of backgrounds
    found.stats()  # how often there was none, and why

`python -m patchmill.loaders.prepare masks DATA` writes the file. It is looked for as `DATA.masks`
beside a folder, a .beton, a tar or a list, then in the cache, under the data's fingerprint. Masks
in shards (.mask.png) or betons (the field mask), and those of scenes, serve where there is no file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.loaders.common import cache
from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.loaders.copypaste.mask_file import MaskFile
    from patchmill.loaders.sources import Masked, Source

log = logging.getLogger("patchmill")

SUFFIX = ".masks"
USED, MISSING, DEGENERATE, UNREADABLE = "used", "missing", "degenerate", "unreadable"
FOREGROUND_LEVEL = 128  # from here on a pixel is foreground


@dataclass(frozen=True)
class MaskLookup:
    """One sample's mask, and whether training may use it."""

    state: str  # USED ... UNREADABLE
    plane: np.ndarray | None  # uint8 [height, width]; there may be one that is degenerate
    why: str = ""  # it is not used

    @property
    def foreground(self) -> float:
        """Share of pixels that are more foreground than not."""
        return 0.0 if self.plane is None else float((self.plane >= FOREGROUND_LEVEL).mean())


@dataclass(frozen=True)
class MaskStats:
    """How often a mask was asked for, by what there was."""

    used: int = 0
    missing: int = 0
    degenerate: int = 0
    unreadable: int = 0

    @property
    def without(self) -> int:
        """Images that stayed as they were."""
        return self.missing + self.degenerate + self.unreadable


class Masks:
    """The masks of a data set; any thread may ask."""

    def __init__(
        self,
        name: str,
        fingerprint: str,
        found: Masked | MaskFile,
        estimator: Mapping[str, Any] | None = None,
    ) -> None:
        from patchmill.loaders.copypaste.mask_file import MaskFile

        self.name = name  # for messages
        self.fingerprint = fingerprint  # equal for equal masks of equal data
        self.estimator = estimator  # what made them, where that is known
        self.file = found if isinstance(found, MaskFile) else None
        self._found = found
        self._share = self.file.share if self.file else _kept(self._look_share, found)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def plane(self, index: int) -> np.ndarray | None:
        """uint8 [height, width], 0 background to 255; None, and counted, where it cannot be used.

        A mask with colours is a MillError.
        """
        found = self.lookup(index)
        with self._lock:
            self._counts[found.state] += 1
            first = found.state == UNREADABLE and self._counts[UNREADABLE] == 1
        if first:
            log.warning("mask %d of %s cannot be used: %s", index, self.name, found.why)
        return found.plane if found.state == USED else None

    def lookup(self, index: int) -> MaskLookup:
        """As `plane`, with the reason; not counted."""
        from patchmill.loaders.decode.decoder import BadImage

        try:
            plane = self._found.mask(index)
        except (BadImage, OSError) as error:
            return MaskLookup(UNREADABLE, None, getattr(error, "strerror", None) or str(error))
        why = self.file.why(index) if self.file else ""
        if plane is None:
            return MaskLookup(MISSING, None, why or "there is none")
        if not why:
            why = degenerate_reason(plane)
        return MaskLookup(DEGENERATE if why else USED, plane, why)

    def foreground(self, index: int) -> float | None:
        """Of the pixels, those that are foreground; None where the mask cannot be used.

        A file tells without a look at the mask. Others are looked at, and each once in a run.
        """
        return self._share(index)

    def _look_share(self, index: int) -> float | None:
        found = self.lookup(index)
        return found.foreground if found.state == USED else None

    def stats(self) -> MaskStats:
        with self._lock:
            return MaskStats(**self._counts)


_LATEST = 4096  # samples of a stream: some batches


def _kept(
    look: Callable[[int], float | None], found: Masked | MaskFile
) -> Callable[[int], float | None]:
    """`look`, whose answers are kept: in 4 bytes for each sample, or the latest of a stream."""
    if not hasattr(found, "__len__"):
        return functools.lru_cache(_LATEST)(look)
    known = np.zeros(len(found), np.float32)  # 0: not looked at; -1: of no use; else 1 + share

    def share(index: int) -> float | None:
        if not known[index]:
            seen = look(index)
            known[index] = -1 if seen is None else 1 + seen
        return None if known[index] < 0 else float(known[index]) - 1

    return share


def degenerate_reason(plane: np.ndarray) -> str:
    """Why a plane that parts nothing is of no use; else empty."""
    if not plane.size or plane.max() < FOREGROUND_LEVEL:
        return "all of it is background"
    return "all of it is foreground" if plane.min() >= FOREGROUND_LEVEL else ""


# ----------------------------------------------------------------------------------- where they are


def open_masks(
    source: Source, path: str | Path | None = None, method: str | None = None
) -> Masks | None:
    """The masks in a file, by default the one that is found, or else the source's own; or None."""
    file = Path(path) if path is not None else find_mask_file(source)
    if file is not None:
        return open_mask_file(file, source, method)
    return source_masks(source, method)


def source_masks(source: Source, method: str | None = None) -> Masks | None:
    """The masks that came with the data."""
    if not getattr(source, "masked", False):
        return None
    masked: Masked = source  # type: ignore[assignment]  # it says so
    found = Masks(source.name, source.fingerprint, masked, _recorded(source))
    _warn_of_others(found, method)
    return found


def _recorded(source: Source) -> dict[str, Any] | None:
    """The estimator that `prepare` noted beside the shards or the .beton that it made."""
    path = os.path.realpath(os.path.expanduser(source.name))
    about = os.path.join(path, "dataset.json") if os.path.isdir(path) else f"{path}.json"
    try:
        return json.loads(Path(about).read_bytes())["masks"]["estimator"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_mask_file(source: Source) -> Path | None:
    """The file of masks that belongs to the data: beside it, or in the cache."""
    places = (mask_path_beside(source), _cached(source))
    return next((place for place in places if place is not None and place.exists()), None)


def default_mask_path(source: Source) -> Path:
    """Where `find` will look: beside the data, or in the cache if nothing can be written there."""
    path = mask_path_beside(source)
    if path is not None and (path.exists() or os.access(path.parent, os.W_OK)):
        return path
    cache.folder("masks")
    return _cached(source)


def mask_path_beside(source: Source) -> Path | None:
    """`DATA.masks`; None of data that is not a file or a folder."""
    path = os.path.realpath(os.path.expanduser(source.name))
    return Path(path + SUFFIX) if os.path.exists(path) else None


def _cached(source: Source) -> Path:
    name = re.sub(r"[^\w.-]", "_", source.fingerprint)
    return cache.root() / "masks" / f"{name}{SUFFIX}"


def open_mask_file(path: str | Path, source: Source, method: str | None = None) -> Masks:
    """The masks in a file, which must be of this data.

    Those of another `method` than asked for, or of another version of it, are a warning.
    """
    from patchmill.loaders.copypaste.mask_file import MaskFile

    file = MaskFile(Path(path))
    if file.meta["source"] != source.fingerprint:
        raise MillError(
            f"{path} holds masks of {file.meta['samples']:,} other images than {source.name} has "
            f"now ({len(source):,}): make them anew, with "
            f"python -m patchmill.loaders.prepare masks {source.name} --overwrite"
        )
    content = hashlib.sha256(file.states.data)
    content.update(file.checksums.data)
    found = Masks(str(path), content.hexdigest()[:16], file, file.meta["estimator"])
    _warn_of_others(found, method)
    return found


def _warn_of_others(found: Masks, method: str | None) -> None:
    made = found.estimator
    if made is None:
        return
    asked = expected_estimator(method or made["method"])
    if any(made[key] != value for key, value in asked.items() if method or key == "version"):
        log.warning(
            "the masks of %s were made by %s, not by %s",
            found.name,
            describe_estimator(made),
            describe_estimator(asked),
        )


def expected_estimator(method: str) -> dict[str, Any]:
    """What masks of this method would say of themselves; of a learned one, without its weights."""
    from patchmill.loaders.common import calls
    from patchmill.loaders.saliency import METHODS, VERSION, Learned
    from patchmill.loaders.saliency.settings import fingerprint

    name, arguments = calls.parse(method)
    known: dict[str, Any] = {"method": name, "version": VERSION}
    if METHODS.get(name) is Learned and not arguments:
        return known
    constants = calls.call(method, METHODS, "saliency method")
    if isinstance(constants, Learned):
        return known
    return known | {"fingerprint": fingerprint(constants)}


def describe_estimator(estimator: Mapping[str, Any]) -> str:
    """`rbd, version 1 (constants 1a2b3c4d)`."""
    text = f"{estimator['method']}, version {estimator['version']}"
    constants = estimator.get("fingerprint")
    return f"{text} (constants {constants[:8]})" if constants else text
