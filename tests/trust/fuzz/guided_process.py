"""Run one of `guided.PARSERS` under atheris: PARSER TRIES SEED FOLDER OUTCOME.

The outcome is written after TRIES tries. A process that ends earlier was ended by an input.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import pkgutil
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import atheris

from trust.check import SHOWN, Outcome, Task
from trust.fuzz import guided, opening

_SECONDS = 20  # timeout per input
_MEGABYTES = 4096  # memory limit of the process


def main(name: str, tries: int, seed: int, folder: Path, found: Path) -> None:
    parser = guided.PARSERS[name]
    module, _, function = parser.check.partition(":")
    check = getattr(importlib.import_module(module), function)
    for module in parser.modules:
        _instrument(module)
    skipped = iter(range(parser.part))

    def drive(
        task: Task,
        outcome: Outcome,
        seeds: list[bytes],
        changes: opening.Changes,
        one: Callable[[int, bytes], None],
    ) -> None:
        if next(skipped, None) is None:
            _fuzz(tries, seed, folder, found, outcome, seeds, changes, one)

    opening.drive = drive
    check(Task(name, tries, folder, seed))


def _fuzz(
    tries: int,
    seed: int,
    folder: Path,
    found: Path,
    outcome: Outcome,
    seeds: list[bytes],
    changes: opening.Changes,
    one: Callable[[int, bytes], None],
) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(seeds):
        (corpus / f"{number:03d}").write_bytes(data)

    def run(data: bytes) -> None:
        failures, number = outcome.failures, outcome.tries
        one(number, data)
        if outcome.failures > failures and failures < SHOWN:
            (kept := folder / f"failed-{number}").write_bytes(data)
            outcome.texts[-1] += f"; its input is {kept}"
        if outcome.tries >= tries:
            counts = {name: getattr(outcome, name) for name in ("tries", "failures", "texts")}
            found.write_text(json.dumps(counts))
            print(f"ends: {dict(outcome.ends)}", flush=True)
            os._exit(0)

    def mutated(data: bytes, most: int, number: int) -> bytes:
        """Half of the time mutate as without guidance: such changes keep formats intact."""
        draw = random.Random(number)
        if draw.random() < 0.5:
            return changes.fitted(atheris.Mutate(data, most), draw)[:most]
        try:
            return changes.made(data, draw.choice(seeds), draw)[:most]
        except Exception:  # the data no longer have the format
            return opening.mutate(data, draw, draw.choice(seeds))[:most]

    options = [
        *(f"-runs={tries + 1000}", f"-seed={seed + 1}", f"-artifact_prefix={folder}/"),
        *(f"-timeout={_SECONDS}", f"-rss_limit_mb={_MEGABYTES}", "-use_value_profile=1"),
        f"-max_len={2 * max(map(len, seeds)) + 512}",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], run, custom_mutator=mutated)
    atheris.Fuzz()


def _instrument(prefix: str) -> None:
    """Instrument branches and comparisons of the modules' own functions for atheris.

    Compiled functions are no longer Python; they are left alone.
    """
    name = prefix if prefix in sys.modules else f"patchmill.{prefix}"
    package = importlib.import_module(name)
    for inner in pkgutil.iter_modules(getattr(package, "__path__", ())):
        with contextlib.suppress(ImportError):  # of missing packages
            importlib.import_module(f"{name}.{inner.name}")
    for each in list(sys.modules):
        if each == name or each.startswith(f"{name}."):
            for function in set(_functions(sys.modules[each])):
                atheris.instrument_func(function)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    values = list(vars(module).values())
    for value in list(values):
        if isinstance(value, type) and value.__module__ == module.__name__:
            values += vars(value).values()
    for value in map(_plain, values):
        if isinstance(value, FunctionType) and value.__code__.co_filename == module.__file__:
            yield value


def _plain(value: Any) -> Any:
    """The function in a property, a class method or a decorator."""
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, functools.cached_property):
        value = value.func
    value = getattr(value, "__func__", value)
    return getattr(value, "__wrapped__", value)


if __name__ == "__main__":
    parser, tries, seed, folder, found = sys.argv[1:]
    main(parser, int(tries), int(seed), Path(folder), Path(found))
