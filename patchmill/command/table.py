"""Commands of `patchmill`: each with its line of the overview and its function."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

Main = Callable[[Sequence[str]], None]


class Command(NamedTuple):
    title: str
    entry: str  # module:function, called with the arguments after the command
    arguments: tuple[str, ...] = ()  # put before those
    idle_threads_sleep: bool = False  # while torch runs: see patchmill/script.py

    def load(self) -> Main:
        module, _, name = self.entry.partition(":")
        main: Main = getattr(importlib.import_module(f"patchmill.{module}"), name)
        return main


PREPARE = "loaders.prepare.command:main"

COMMANDS = {
    "train": Command("train a network, or resume a run", "training.run:main", (), True),
    "evaluate": Command("evaluate a run", "training.evaluate:main", (), True),
    "export": Command("export a run's backbone to a library", "training.export:main", (), True),
    "report": Command("rewrite the report of a run", "training.report.__main__:main"),
    "watch": Command("watch runs in a browser", "training.watch.command:main", (), True),
    "submit": Command("queue training on SLURM, or run it here", "cluster.submit:main"),
    "status": Command("show runs, read their logs, stop them", "cluster.status:main"),
    "prepare": Command("make shards or a .beton of images", PREPARE),
    "masks": Command("make foreground masks of images", PREPARE, ("masks",)),
    "cache": Command("list and remove decoded images", "loaders.decoded.command:main"),
    "inspect": Command("describe and verify prepared data", PREPARE, ("inspect",)),
    "preview": Command("draw the views of a recipe", "loaders.preview.command:main"),
    "bench": Command("measure this machine", "command.bench:main"),
    "doctor": Command("report what this machine has and lacks", "command.doctor.command:main"),
    "bug-report": Command("describe a problem for an issue", "command.bug_report:main"),
    "completion": Command("print a shell completion script", "command.completion.command:main"),
}
