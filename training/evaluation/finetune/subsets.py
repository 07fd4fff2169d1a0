"""Subsets of the labelled training images, stored as files that all methods share.

A drawn subset has the same share of every class. It depends only on the data, the share and the
seed, and for one seed a smaller share is contained in a larger one.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import write_atomic
from patchmill.loaders.order.permutation import Order
from patchmill.loaders.sources import Source
from patchmill.training.evaluation.scores import on_rank_0

_MOST_SHOWN = 3  # names in an error


class Few(NamedTuple):
    """Labelled images to learn from."""

    title: str  # "5 % of the labels"
    key: str  # the same for names of files and metrics: "5pct"
    ids: np.ndarray  # int64, ascending


def draw(source: Source, share: float, seed: int) -> np.ndarray:
    """Draw ids of that share of every class, rounded to whole images; ascending."""
    labels = _labels(source)
    chosen = []
    for number in np.unique(labels[labels >= 0]).tolist():
        members = np.flatnonzero(labels == number)
        count = math.floor(share * len(members) + 0.5)
        if not count:
            raise _too_small(source, labels, share)
        chosen.append(members[Order(len(members), seed).ids(number, 0, count)])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def stored(source: Source, share: float, seed: int, folder: Path) -> Few:
    """Load the subset from `folder`; on first use it is drawn and stored there."""
    path = folder / f"subset-{key_of(share)}-seed{seed}.txt"
    # Rank 0 reads or draws for all ranks, so that they agree even if their file systems do not.
    ids = on_rank_0(
        lambda: read(source, path) if path.exists() else _store(path, source, share, seed)
    )
    return Few(f"{100 * share:g} % of the labels", key_of(share), ids)


def listed(source: Source, file: Path) -> Few:
    """Load the images that a file lists, one per line, by file name, path or number."""
    ids = on_rank_0(lambda: _find(source, file))
    return Few(f"the labels listed in {file.name}", "list", ids)


def key_of(share: float) -> str:
    """Format a share as `5pct`, or `0_5pct` for half a percent."""
    return f"{100 * share:g}pct".replace(".", "_")


def read(source: Source, path: Path) -> np.ndarray:
    """Read the ids of a stored subset of this source."""
    first, *lines = _lines(path) or [""]
    if f"(fingerprint {source.fingerprint})" not in first:
        raise MillError(
            f"{path} is a subset of other data than {source.name}: name another folder with "
            "subsets=DIR"
        )
    try:
        ids = np.array([int(line) for line in lines], np.int64)
    except ValueError:
        raise MillError(
            f"{path} is damaged: each of its lines must be the number of a sample; remove it to "
            "draw it again"
        ) from None
    return _checked(source, ids, path)


def _store(path: Path, source: Source, share: float, seed: int) -> np.ndarray:
    ids = draw(source, share, seed)
    header = (
        f"# {100 * share:g} % of each class of {source.name} (fingerprint {source.fingerprint}), "
        f"seed {seed}"
    )
    text = "\n".join([header, *map(str, ids.tolist())]) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text, durable=True)
    except OSError as error:
        raise MillError(f"cannot write {path}: {error.strerror or error}") from None
    return ids


# -------------------------------------------------------------------------------------- lists


def _find(source: Source, file: Path) -> np.ndarray:
    wanted = [line for line in _lines(file) if not line.startswith("#")]
    numbers = all(line.isdecimal() for line in wanted)
    ids = np.array([int(line) for line in wanted] if numbers else _match(source, wanted, file))
    return _checked(source, ids, file)


def _match(source: Source, names: list[str], file: Path) -> list[int]:
    """Find the ids of the samples with these file names, optionally with folders in front."""
    wanted = {_last_part(name) for name in names}
    places: dict[str, list[tuple[str, int]]] = {}
    for id in range(len(source)):
        path = _path(source.where(id))
        if (last := _last_part(path)) in wanted:
            places.setdefault(last, []).append((path, id))
    matched: list[int] = []
    missing: list[str] = []
    for name in names:
        fits = [
            id
            for path, id in places.get(_last_part(name), [])
            if f"/{path}".endswith("/" + name.lstrip("./"))
        ]
        if len(fits) > 1:
            raise MillError(
                f"{file}: {name} is the name of {len(fits)} images of {source.name}: add its "
                "folder, as in FOLDER/NAME"
            )
        if fits:
            matched.append(fits[0])
        else:
            missing.append(name)
    if missing:
        shown = ", ".join(missing[:_MOST_SHOWN])
        raise MillError(
            f"{file} names {len(missing)} images that are not in {source.name}: {shown}"
            f"{', ...' if len(missing) > _MOST_SHOWN else ''}; list only its training images"
        )
    return matched


def _path(where: str) -> str:
    """Extract the path or member name from a sample's location.

    `a.tar: b/c.jpg at byte 512` gives `b/c.jpg`.
    """
    before, at_byte, _ = where.rpartition(" at byte ")
    return before.rpartition(": ")[2] if at_byte else where


def _last_part(path: str) -> str:
    return path.rpartition("/")[2]


# ------------------------------------------------------------------------------------- checks


def _checked(source: Source, ids: np.ndarray, path: Path) -> np.ndarray:
    """Check ids; return them distinct and ascending, all labelled."""
    labels, unique = _labels(source), np.unique(ids)
    if not len(ids):
        raise MillError(f"{path} lists no images")
    if not 0 <= unique[0] <= unique[-1] < len(source):
        raise MillError(
            f"{path} lists sample {unique[-1]}, but {source.name} has samples 0 to "
            f"{len(source) - 1}: use a list of this data"
        )
    if (labels[unique] < 0).any():
        raise MillError(f"{path} lists images of {source.name} that have no label: remove them")
    return unique.astype(np.int64)


def _labels(source: Source) -> np.ndarray:
    labels = source.labels_of(np.arange(len(source)))
    if labels is None or not (labels >= 0).any():
        raise MillError(
            f"{source.name} has no labels to learn from: name labelled images with data.bank=DIR"
        )
    return labels


def _too_small(source: Source, labels: np.ndarray, share: float) -> MillError:
    counts = np.bincount(labels[labels >= 0])
    counts = np.where(counts, counts, len(labels) + 1)
    number = int(counts.argmin())
    name = source.classes[number] if number < len(source.classes) else str(number)
    least = math.ceil(5000 / counts[number]) / 10000
    return MillError(
        f"labels={share:g} selects no image of class {name}, which has {counts[number]}: use at "
        f"least labels={least:g}"
    )


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise MillError(f"cannot read the list {path}: {reason}") from None
    return [line.strip() for line in lines if line.strip()]
