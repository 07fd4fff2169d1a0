"""`Reopened`: sources with open files, which another process reopens when it unpickles them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class Reopened:
    """Base class pickled as the call that created the object, without files, maps and locks."""

    _made_by: Callable[[], Any]

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        made = super().__new__(cls)
        made._made_by = functools.partial(cls, *arguments, **options)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return self._made_by, ()
