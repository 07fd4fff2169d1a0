"""Where encoded images come from. A source is a numbered list of encoded bytes with labels."""

from __future__ import annotations

from typing import Protocol

import numpy as np


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


def open_source(data: str | Source) -> Source:
    """A source from what the user wrote: a folder, `scenes:10000`, or `scenes(count=100, ...)`."""
    from patchmill.loaders import call
    from patchmill.loaders.sources import folder, scenes

    if not isinstance(data, str | bytes) and hasattr(data, "read") and hasattr(data, "where"):
        return data
    text = str(data)
    if text == "scenes" or text.startswith(("scenes:", "scenes(")):
        name, _, count = text.partition(":")
        return scenes.Scenes(**_count(text, count)) if name == "scenes" else call.call(text, {"scenes": scenes.Scenes}, "source")
    return folder.Folder(text)
