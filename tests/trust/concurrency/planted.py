"""Faults for a check to find: a line of a function removed, changed or moved."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trust.concurrency.scheduler import replaced


@contextmanager
def planted(owner: Any, name: str, old: str, new: str) -> Iterator[None]:
    """Context in which lines of a function of a class or module are replaced."""
    function = inspect.unwrap(getattr(owner, name))
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(old) != 1:
        raise ValueError(f"{name} has {source.count(old)} times: {old}")
    found: dict[str, Any] = {}
    code = compile(f"from __future__ import annotations\n{source.replace(old, new)}",
                   function.__code__.co_filename, "exec")  # fmt: skip
    exec(code, function.__globals__, found)
    with replaced((owner, name, found[name])):
        yield
