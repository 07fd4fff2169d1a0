"""The files of an output: their paths, whether they may be written, and the final dataset.json.

dataset.json describes the output and appears once all of it is complete. Ranks do not communicate:
each marks its journal as done, and any rank that finds all journals done writes dataset.json. Two
ranks that do so concurrently write the same content.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import patchmill
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste.masks import Masks
from patchmill.loaders.files import columns
from patchmill.loaders.files.writing import remove_left_over, unique_name, write_atomic
from patchmill.loaders.prepare import journal, write_beton, write_shards
from patchmill.loaders.prepare.journal import JournalState, Segment, Tally
from patchmill.loaders.prepare.options import BETON, SHARDS, Options, difference
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.beton import header, layout
from patchmill.loaders.sources.beton.source import Beton
from patchmill.loaders.sources.shards import index

FORMAT_TITLES = {SHARDS: "WebDataset shards", BETON: "FFCV .beton"}
_SHARD = r"data-(\d{4}-)?\d{6}\.tar"
_OWN_FILES = re.compile(
    rf"{_SHARD}(\.index)?(\.\w+\.tmp)?|\.{_SHARD}\.part"
    r"|\.prepare-\d{4}\.journal|dataset\.json|bad(-\d{4})?\.jsonl|\.[\w.-]+\.[0-9a-f]+\.part"
)


# -------------------------------------------------------------------------------------------- paths


@dataclass(frozen=True)
class OutputPaths:
    """The paths of one output: a folder of shards, or a .beton with the files next to it."""

    out: Path
    format: str

    @property
    def metadata(self) -> Path:
        """dataset.json, or OUT.beton.json."""
        return self.out / "dataset.json" if self.format == SHARDS else self._sibling("json")

    @property
    def bad_list(self) -> Path:
        return self.out / "bad.jsonl" if self.format == SHARDS else self._sibling("bad.jsonl")

    def bad_list_of(self, options: Options) -> Path:
        """The list of one rank, until the lists are merged."""
        if options.world_size == 1:
            return self.bad_list
        return self.out / f"bad-{options.rank:04d}.jsonl"

    def journal(self, rank: int) -> Path:
        if self.format == BETON:
            return self._sibling("journal")
        return self.out / f".prepare-{rank:04d}.journal"

    def journals(self) -> list[Path]:
        """The journals that exist."""
        if self.format == BETON:
            return [path for path in [self.journal(0)] if path.exists()]
        return sorted(self.out.glob(".prepare-????.journal"))

    def temporary_files(self) -> list[Path]:
        """Files that a complete output does not need."""
        bad_lists = [] if self.format == BETON else self.out.glob("bad-????.jsonl")
        return [*self.journals(), *bad_lists]

    def own_files(self) -> Iterator[Path]:
        """All files that were written here, data included."""
        if self.format == BETON:
            partial = write_beton.partial_path(self.out)
            paths = [self.out, partial, self.metadata, self.bad_list, self.journal(0)]
            yield from (path for path in paths if path.exists())
        elif self.out.is_dir():
            yield from (path for path in self.out.iterdir() if _OWN_FILES.fullmatch(path.name))

    def _sibling(self, suffix: str) -> Path:
        return self.out.with_name(f"{self.out.name}.{suffix}")


def choose_paths(out: Path, format: str | None) -> OutputPaths:
    """Choose the format from OUT's name if it is None, and check the name."""
    format = format or (BETON if out.suffix == ".beton" else SHARDS)
    if format == BETON and out.suffix != ".beton":
        raise MillError(f"the name of a .beton must end in .beton, unlike {str(out)!r}")
    if format == SHARDS and out.suffix in (".beton", ".tar"):
        raise MillError(f"shards need a folder, but {str(out)!r} looks like a file")
    return OutputPaths(out, format)


# ------------------------------------------------------------------------------------------- claims


def claim(paths: OutputPaths, root: str | None, identity: dict[str, Any], overwrite: bool) -> bool:
    """Create the folder; return True if the output is complete. `root` is the source's folder."""
    out = paths.out
    _check_outside(out, root)
    if paths.format == SHARDS:
        out.mkdir(parents=True, exist_ok=True)
    elif not out.parent.is_dir():
        raise MillError(f"cannot write {out}: there is no folder {out.parent}")
    if overwrite:
        _check_foreign_files(paths)
        for path in paths.own_files():
            path.unlink()
    if complete := is_complete(paths, root, identity):
        _remove_temporary_files(paths)
    return complete


def is_complete(paths: OutputPaths, root: str | None, identity: dict[str, Any]) -> bool:
    """True if all is written; MillError if anything else is in its place. Writes nothing."""
    out = paths.out
    _check_outside(out, root)
    _check_foreign_files(paths)
    for earlier in _earlier_identities(paths):
        if changed := difference(earlier, identity):
            raise MillError(
                f"{out} was made with {changed}: give the same options to continue, another OUT, "
                "or --overwrite to remove it and start over"
            )
    if paths.metadata.exists():
        return True
    # In this order: another rank may begin meanwhile, and its first file is its journal.
    existing = list(paths.own_files())
    if existing and not paths.journals():
        raise MillError(
            f"{existing[0]} exists, with no record of how it was made: "
            "choose another OUT, or --overwrite it"
        )
    return False


def read_metadata(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(path.read_text())
        if isinstance(metadata, dict) and "options" in metadata:
            return metadata
    except (OSError, ValueError):
        pass
    raise MillError(f"cannot read {path}: not written by prepare, or damaged since")


def _earlier_identities(paths: OutputPaths) -> Iterator[dict[str, Any]]:
    """The identities in the metadata and in each journal."""
    with contextlib.suppress(FileNotFoundError):
        if paths.metadata.exists():
            yield read_metadata(paths.metadata)["options"]
    for path in paths.journals():
        if state := journal.read(path):
            yield state.identity


def _check_outside(out: Path, root: str | None) -> None:
    if root is None:
        return
    real = os.path.realpath(out)
    if os.path.commonpath([real, root]) == root:
        raise MillError(
            f"{out} is inside the source {root}, which would then include it: choose another OUT"
        )


def _check_foreign_files(paths: OutputPaths) -> None:
    if paths.format == BETON:
        if paths.out.is_dir():
            raise MillError(f"{paths.out} is a folder: name a file for the .beton")
        return
    for name in sorted(os.listdir(paths.out)) if paths.out.exists() else []:
        if not _OWN_FILES.fullmatch(name):
            raise MillError(
                f"{paths.out} holds {name!r}, which prepare did not write: use a new or empty "
                "folder"
            )


def _remove_temporary_files(paths: OutputPaths) -> None:
    for path in paths.temporary_files():
        path.unlink(missing_ok=True)  # another rank may be doing the same
    for path in (paths.metadata, paths.bad_list):
        remove_left_over(path)


# --------------------------------------------------------------------------------------- completion


def unfinished_ranks(paths: OutputPaths, world_size: int) -> list[int]:
    states = (journal.read(paths.journal(rank)) for rank in range(world_size))
    return [rank for rank, state in enumerate(states) if not _is_done(paths, state)]


def _is_done(paths: OutputPaths, state: JournalState | None) -> bool:
    """True if a rank has written its share and all of it still exists."""
    if state is None or not state.done:
        return False
    shards = [segment.output for segment in state.segments] if paths.format == SHARDS else []
    return all(write_shards.is_there(paths.out, shard) for shard in shards)


def complete(
    paths: OutputPaths,
    source: Source,
    masks: Masks | None,
    identity: dict[str, Any],
    options: Options,
) -> bool:
    """Write dataset.json and remove temporary files; return False while other ranks still work."""
    segments: list[Segment] = []
    for rank in range(options.world_size):
        state = journal.read(paths.journal(rank))
        if state is None and paths.metadata.exists():
            return True  # another rank was faster
        if state is None or not _is_done(paths, state):
            return False
        segments += state.segments
    tally = journal.total(segments)
    if not tally.samples:
        raise MillError(f"none of the {len(tally.bad)} images can be used: see {paths.bad_list}")
    if tally.bad:
        journal.write_bad_list(paths.bad_list, tally.bad)
    metadata = _metadata(paths, source, identity, segments, tally)
    if masks:
        metadata["masks"] |= {"from": masks.name, "estimator": masks.estimator}
    text = json.dumps(metadata, indent=1) + "\n"
    write_atomic(paths.metadata, text, unique_name(paths.metadata), durable=True)
    _remove_temporary_files(paths)
    return True


def _metadata(
    paths: OutputPaths,
    source: Source,
    identity: dict[str, Any],
    segments: Sequence[Segment],
    tally: Tally,
) -> dict[str, Any]:
    metadata = {
        "format": FORMAT_TITLES[paths.format],
        "made_by": f"patchmill {patchmill.__version__}",
        "source": source.name,
        "options": identity,
        "classes": list(source.classes),
        "samples_per_class": _samples_per_class(paths, segments, len(source.classes)),
    }
    metadata |= tally.to_json() | {"bad": len(tally.bad)}
    if paths.format == BETON:
        metadata["checksums"] = {"table": f"{beton_table_checksum(paths.out):08x}"}
    else:
        metadata["shards"] = [segment.output for segment in segments if segment.output]
    return metadata


def _samples_per_class(paths: OutputPaths, segments: Sequence[Segment], classes: int) -> list[int]:
    counts = np.zeros(classes, np.int64)
    for labels in _labels(paths, segments) if classes else []:
        counts += np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes)
    return counts.tolist()


def _labels(paths: OutputPaths, segments: Sequence[Segment]) -> list[np.ndarray]:
    if paths.format == BETON:
        labels = Beton(paths.out).labels
        return [] if labels is None else [labels]
    names = [segment.output["name"] for segment in segments if segment.output]
    indexes = (Path(index.index_path(paths.out / name)) for name in names)
    return [columns.read(path, index.KIND, only=["labels"])["labels"] for path in indexes]


def beton_table_checksum(path: Path) -> int:
    """CRC-32 of a .beton except the images, which have their own checksums."""
    with open(path, "rb") as file:
        beton = header.parse(str(path), file.fileno())
        top = layout.HEADER.itemsize + len(beton.fields) * layout.FIELD.itemsize
        top += beton.table.nbytes
        end = int((beton.allocations["start"] + beton.allocations["size"]).max(initial=0))
        end = min(end, beton.size)
        rest = beton.bytes_at(end, beton.size - end)
        return zlib.crc32(rest, zlib.crc32(beton.bytes_at(0, top)))
