"""Custom sources by name: `sqlite_source:SqliteSource(path='photos.sqlite')`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from patchmill.loaders.common import calls, own_code
from patchmill.loaders.common.errors import MillError

CALL = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<call>[A-Za-z_]\w*(\(.*\))?)", re.DOTALL)


def is_own(data: str | Path) -> bool:
    """True for `module:Name(...)`, and for `module:Name` unless a file has that name."""
    if not isinstance(data, str) or not CALL.fullmatch(data):
        return False
    return data.endswith(")") or not os.path.lexists(data)


def make(data: str | Path) -> Any:
    """Call the class or function that `module:Name(key=value)` names."""
    text = str(data)
    match = CALL.fullmatch(text)
    assert match
    name, _ = calls.parse(match["call"])
    factory = own_code.load(f"{match['module']}:{name}", text)
    if not callable(factory):
        raise MillError(f"{text}: {name} is not a class or function")
    return calls.call(match["call"], {name: factory}, "source")
