"""Stream of a page: changes in the runs that it shows, as server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from patchmill.training.watch import run_files, shelf
from patchmill.training.watch.series import Position
from patchmill.training.watch.shelf import Run, Shelf

TICK_EVERY = 5.0  # seconds between writes to a page if nothing changes
MOST_SELECTED = 8


class Stream:
    """Events for one page: everything at first, then only changes.

    `selected` are the runs whose curves and details are sent.
    """

    def __init__(self, shelf: Shelf, selected: Sequence[str]) -> None:
        self._shelf, self._selected = shelf, list(selected)[:MOST_SELECTED]
        self._sent: dict[str, str] = {}
        self._positions: dict[str, tuple[Run, Position]] = {}
        self._more = False

    def events(self, wait: Callable[[float], bool]) -> Iterator[str]:
        """Text of events; `wait(seconds)` is True when the server ends."""
        yield "retry: 2000\n\n"
        ticked = float("-inf")
        while True:
            yield from self.news()
            if time.monotonic() - ticked > TICK_EVERY:
                ticked = time.monotonic()
                yield _event("tick", json.dumps({"now": time.time()}))
            if wait(0.0 if self._more else shelf.LOOK_EVERY):
                return

    def news(self) -> Iterator[str]:
        runs = self._shelf.runs()
        table = {
            "folder": self._shelf.title,
            "many": not self._shelf.is_one_run,
            "runs": self._shelf.table(),
        }
        yield from self._changed("runs", "runs", table)
        self._more = False
        for name in self._selected:
            if run := runs.get(name):
                yield from self._changed(f"run {name}", "run", run.details())
                loader = run_files.clean(run.status.get("loader"))
                yield from self._changed(f"loader {name}", "loader", {"id": name, "loader": loader})
                yield from self._log(run)
            elif self._positions.pop(name, None):
                self._sent.pop(f"run {name}", None)
                self._sent.pop(f"loader {name}", None)
        yield ": looked\n\n"  # writing reveals whether the page has been closed

    def _log(self, run: Run) -> Iterator[str]:
        of_run, position = self._positions.get(run.name, (run, Position()))
        new, now, more = run.log.since(position if of_run is run else Position())
        self._positions[run.name] = run, now
        self._more = self._more or more
        if new:
            yield _event("log", json.dumps({"id": run.name, **new}, allow_nan=False))

    def _changed(self, key: str, kind: str, content: Any) -> Iterator[str]:
        text = json.dumps(content, allow_nan=False)
        if self._sent.get(key) != text:
            self._sent[key] = text
            yield _event(kind, text)


def _event(kind: str, data: str) -> str:
    return f"event: {kind}\ndata: {data}\n\n"
