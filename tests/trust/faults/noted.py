"""Loading that records, like training, after each batch which samples came and where to resume."""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import helpers_pipelines

from patchmill.loaders.decoded import places
from patchmill.loaders.files.writing import write_atomic
from patchmill.loaders.recipe import Recipe
from trust.check import Outcome

EPOCHS = 2

Seen = list[list[Any]]  # epoch, id and hash of the views of each sample, in order


class Loading(NamedTuple):
    """Two epochs of one or several concurrent loaders, which record in a folder what they see."""

    data: Path
    folder: Path
    cache: str = ""  # as in `cache=`; empty: none
    loaders: int = 1
    recipe: Recipe = helpers_pipelines.RECIPE
    batch_size: int = 5
    settings: tuple[tuple[str, Any], ...] = ()  # further arguments of `build`

    def notes(self, number: int = 0) -> Path:
        return self.folder / f"notes-{number}.json"

    def noted(self, number: int = 0) -> dict[str, Any]:
        path = self.notes(number)
        return json.loads(path.read_text()) if path.exists() else {"state": None, "seen": []}

    def go_on(self, number: int = 0) -> str:
        """Continue after the last recorded batch, to the end of the last epoch."""
        os.environ["PATCHMILL_CACHE"] = str(self.folder / "home")
        places.SHARED_MEMORY = self.folder / "memory"  # instead of /dev/shm, which others use
        places.SHARED_MEMORY.mkdir(parents=True, exist_ok=True)
        self._iterate(number)
        gc.collect()  # as at exit: the last user of a cache in RAM removes it
        return ""

    def _iterate(self, number: int) -> None:
        noted = self.noted(number)
        ledger = self.folder.with_name(f"ledger-{number}")
        settings: dict[str, Any] = {"cache": self.cache or None, "ledger": ledger}
        loader = helpers_pipelines.make_loader(
            self.data, self.recipe, self.batch_size, seed=2, drop_last=False,
            **settings | dict(self.settings),
        )  # fmt: skip
        if noted["state"]:
            loader.load_state_dict(noted["state"])
        while (epoch := loader.epoch) < EPOCHS:
            for batch in loader:
                noted["seen"] += [[epoch, *sample] for sample in _samples(batch)]
                noted["state"] = loader.state_dict()
                write_atomic(self.notes(number), json.dumps(noted))
        loader.close()


def _samples(batch: Any) -> list[list[Any]]:
    views = [group.numpy() for group in batch.views.values()]
    hashes = []
    for place in range(len(batch.ids)):
        digest = hashlib.blake2b(digest_size=16)
        for group in views:
            digest.update(group[place].tobytes())
        hashes.append(digest.hexdigest())
    return [[id, text] for id, text in zip(batch.ids.tolist(), hashes, strict=True)]


def compare(outcome: Outcome, name: str, wanted: Seen, seen: Seen) -> None:
    """Count lost and repeated samples; fail if anything else was seen."""
    want, have = (Counter((epoch, id) for epoch, id, _ in it) for it in (wanted, seen))
    outcome.lost += (want - have).total()
    outcome.repeated += (have - want).total()
    if seen != wanted:
        outcome.failed(f"{name}: views or their order differ")
