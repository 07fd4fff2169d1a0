"""The end of a preparation: what was made, in one file that appears when all of it is complete.

Ranks do not talk: each says in its journal that it is done, and whoever then finds all journals
done puts them together. Two that do so at once write the same.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import patchmill
from patchmill.loaders.common import columns
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.files import write_atomic
from patchmill.loaders.copypaste.masks import Masks
from patchmill.loaders.prepare import journal
from patchmill.loaders.prepare.journal import Entry
from patchmill.loaders.prepare.options import BETON, Options
from patchmill.loaders.prepare.output_paths import Place
from patchmill.loaders.prepare.tally import Tally, write_ledger
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.beton import header, layout
from patchmill.loaders.sources.beton.source import Beton
from patchmill.loaders.sources.shards import index

FORMATS = {"shards": "WebDataset shards", "beton": "FFCV .beton"}


def unfinished(place: Place, world_size: int) -> list[int]:
    """The ranks whose part is not complete."""
    found = (journal.read(place.journal(rank)) for rank in range(world_size))
    return [rank for rank, one in enumerate(found) if one is None or not one.done]


def close(
    place: Place,
    source: Source,
    masks: Masks | None,
    identity: dict[str, Any],
    options: Options,
) -> bool:
    """Write what was made, and remove what a later run would have continued from.

    False where other ranks are still at work.
    """
    entries: list[Entry] = []
    for rank in range(options.world_size):
        found = journal.read(place.journal(rank))
        if found is None and place.about.exists():
            return True  # another rank was faster
        if found is None or not found.done:
            return False
        entries += found.entries
    total = sum_up(entries)
    if not total.samples:
        raise MillError(f"none of the {len(total.bad)} images can be used: see {place.bad}")
    if total.bad:
        write_ledger(place.bad, total.bad, options.rank)
    about = _about(place, source, identity, entries, total)
    if masks:
        about["masks"] |= {"from": masks.name, "estimator": masks.estimator}
    temporary = f".{place.about.name}.{options.rank}.part"
    write_atomic(place.about, json.dumps(about, indent=1) + "\n", temporary, durable=True)
    for path in place.leftovers():
        path.unlink(missing_ok=True)  # another rank may be doing so too
    return True


def sum_up(entries: list[Entry]) -> Tally:
    total = Tally()
    for entry in entries:
        total.add(entry.tally)
    return total


def _about(
    place: Place,
    source: Source,
    identity: dict[str, Any],
    entries: list[Entry],
    total: Tally,
) -> dict[str, Any]:
    about = {
        "format": FORMATS[place.format],
        "made_by": f"patchmill {patchmill.__version__}",
        "source": source.name,
        "options": identity,
        "classes": list(source.classes),
        "samples_per_class": _per_class(place, entries, len(source.classes)),
    }
    counts = total.as_json()
    about |= counts | {"bad": len(total.bad)}
    if place.format == BETON:
        about["checksums"] = {"table": f"{table_checksum(place.out):08x}"}
    else:
        about["shards"] = [entry.output for entry in entries if entry.output]
    return about


def _per_class(place: Place, entries: list[Entry], classes: int) -> list[int]:
    counts = np.zeros(classes, np.int64)
    for labels in _labels(place, entries) if classes else []:
        counts += np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes)
    return counts.tolist()


def _labels(place: Place, entries: list[Entry]) -> list[np.ndarray]:
    if place.format == BETON:
        labels = Beton(place.out).labels
        return [] if labels is None else [labels]
    names = [entry.output["name"] for entry in entries if entry.output]
    beside = (Path(index.index_path(place.out / name)) for name in names)
    return [columns.read(path, index.KIND)["labels"] for path in beside]


def table_checksum(path: Path) -> int:
    """CRC-32 of all in a .beton but the images, which have their own."""
    with open(path, "rb") as file:
        opened = header.parse(str(path), file.fileno())
    top = layout.HEADER.itemsize + len(opened.fields) * layout.FIELD.itemsize + opened.table.nbytes
    end = int((opened.allocations["start"] + opened.allocations["size"]).max())
    return zlib.crc32(opened.memory[end:], zlib.crc32(opened.memory[:top]))
