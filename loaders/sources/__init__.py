"""Where encoded images come from. A source is a numbered list of encoded bytes with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from patchmill.loaders.errors import MillError


class Source(Protocol):
    """What a pipeline needs of a data set; reads must be safe from many threads at once."""

    name: str  # how the user would name it, for messages
    fingerprint: str  # equal for equal lists of samples
    classes: list[str]  # class names; empty where there are no labels
    labels: np.ndarray | None  # int64, one per sample, or None

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """The encoded bytes of one sample; OSError where they cannot be had."""
        ...

    def where(self, index: int) -> str:
        """Where the sample lies, for the ledger: a path, or shard and offset."""
        ...


def open_source(data: str | Path | Source) -> Source:
    """A source from what the user wrote: a folder, `scenes:10000`, or `scenes(count=100, ...)`.

    A folder that is called `scenes` is `./scenes`.
    """
    if not isinstance(data, str | Path):
        return _checked(data)
    text = str(data)
    if isinstance(data, str) and (text == "scenes" or text.startswith(("scenes:", "scenes("))):
        return _scenes(text)
    from patchmill.loaders.sources.folder import Folder

    return Folder(data)


def _scenes(text: str) -> Source:
    from patchmill.loaders import call
    from patchmill.loaders.sources.scenes import Scenes

    _, colon, count = text.partition(":")
    if not text.startswith("scenes:"):
        return call.call(text, {"scenes": Scenes}, "source")
    if not (colon and count.isdecimal()):
        raise MillError(f"cannot read {text!r}: write scenes:10000 for ten thousand scenes")
    return Scenes(count=int(count))


def _checked(data: Any) -> Source:
    if hasattr(data, "read") and hasattr(data, "where") and hasattr(data, "fingerprint"):
        return data
    raise MillError(f"cannot read data from {data!r}: give a folder, 'scenes:1000' or a source")
