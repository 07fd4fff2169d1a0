"""Where an output and what belongs to it lie, and whether they may be written there."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.prepare import journal, write_beton
from patchmill.loaders.prepare.options import BETON, SHARDS, Options, difference

ABOUT = "dataset.json"
_SHARD = r"data-(\d{4}-)?\d{6}\.tar"
_OURS = re.compile(
    rf"{_SHARD}(\.index)?(\.\w+\.tmp)?|\.{_SHARD}\.part"
    r"|\.prepare-\d{4}\.journal|dataset\.json|bad(-\d{4})?\.jsonl|\.[\w.-]+\.\d+\.part"
)


@dataclass(frozen=True)
class Place:
    """The paths of one output: a folder of shards, or a .beton with its files beside it."""

    out: Path
    format: str

    @property
    def about(self) -> Path:
        """The file that says what was made; there once all is complete."""
        return self.out / ABOUT if self.format == SHARDS else self._beside("json")

    @property
    def bad(self) -> Path:
        return self.out / "bad.jsonl" if self.format == SHARDS else self._beside("bad.jsonl")

    def bad_of(self, options: Options) -> Path:
        """A rank's own list, until all lists are put together."""
        alone = options.world_size == 1
        return self.bad if alone else self.out / f"bad-{options.rank:04d}.jsonl"

    def journal(self, rank: int) -> Path:
        if self.format == BETON:
            return self._beside("journal")
        return self.out / f".prepare-{rank:04d}.journal"

    def journals(self) -> list[Path]:
        if self.format == BETON:
            return [path for path in [self.journal(0)] if path.exists()]
        return sorted(self.out.glob(".prepare-????.journal"))

    def leftovers(self) -> list[Path]:
        """What is of no use once all is complete."""
        ranks = [] if self.format == BETON else self.out.glob("bad-????.jsonl")
        return [*self.journals(), *ranks]

    def belongings(self) -> Iterator[Path]:
        """Everything that was written here, data and all."""
        if self.format == BETON:
            paths = [self.out, write_beton.part(self.out), self.about, self.bad, self.journal(0)]
            yield from (path for path in paths if path.exists())
        elif self.out.is_dir():
            yield from (path for path in self.out.iterdir() if _OURS.fullmatch(path.name))

    def _beside(self, ending: str) -> Path:
        return self.out.with_name(f"{self.out.name}.{ending}")


def choose(out: Path, format: str | None) -> Place:
    """By the format, or else by what OUT is called."""
    format = format or (BETON if out.suffix == ".beton" else SHARDS)
    if format == BETON and out.suffix != ".beton":
        raise MillError(f"the name of a .beton must end so, unlike {str(out)!r}")
    if format == SHARDS and out.suffix in (".beton", ".tar"):
        raise MillError(f"shards need a folder, and {str(out)!r} looks like a file")
    return Place(out, format)


def claim(place: Place, root: str | None, identity: dict[str, Any], overwrite: bool) -> bool:
    """Make the folder; whether the output is complete already. `root` is the source's folder."""
    out = place.out
    _check_apart(out, root)
    if place.format == SHARDS:
        out.mkdir(parents=True, exist_ok=True)
    elif not out.parent.is_dir():
        raise MillError(f"cannot write {out}: there is no folder {out.parent}")
    if overwrite:
        _check_strangers(place)
        for path in place.belongings():
            path.unlink()
    if complete := is_complete(place, root, identity):
        for path in place.leftovers():
            path.unlink(missing_ok=True)
    return complete


def is_complete(place: Place, root: str | None, identity: dict[str, Any]) -> bool:
    """A MillError where something else is in its place; nothing is written."""
    out = place.out
    _check_apart(out, root)
    _check_strangers(place)
    for begun in _begun(place):
        if what := difference(begun, identity):
            raise MillError(
                f"{out} was made with {what}: give the same options to continue, another OUT, or "
                "--overwrite to remove it and start anew"
            )
    if place.about.exists():
        return True
    if not place.journals() and (left := list(place.belongings())):
        raise MillError(
            f"{left[0]} exists, and nothing says how it was made: "
            "choose another OUT, or --overwrite it"
        )
    return False


def load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        if isinstance(found, dict) and "options" in found:
            return found
    except (OSError, ValueError):
        pass
    raise MillError(f"cannot read {path}: it was not written by prepare, or was damaged since")


def _begun(place: Place) -> Iterator[dict[str, Any]]:
    """How what is there was made: by what is complete, and by each journal."""
    with contextlib.suppress(FileNotFoundError):
        if place.about.exists():
            yield load(place.about)["options"]
    for path in place.journals():
        if found := journal.read(path):
            yield found.identity


def _check_apart(out: Path, root: str | None) -> None:
    if root is None:
        return
    real = os.path.realpath(out)
    if os.path.commonpath([real, root]) == root:
        raise MillError(
            f"{out} lies inside the source {root}, which would grow by it: choose another OUT"
        )


def _check_strangers(place: Place) -> None:
    if place.format == BETON:
        if place.out.is_dir():
            raise MillError(f"{place.out} is a folder: name a file for the .beton")
        return
    for name in sorted(os.listdir(place.out)) if place.out.exists() else []:
        if not _OURS.fullmatch(name):
            raise MillError(
                f"{place.out} holds {name!r}, which prepare did not write: name a folder that is "
                "new or empty"
            )
