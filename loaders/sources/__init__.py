"""Where encoded images come from. A source is a numbered list of encoded bytes with labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.loaders.sources.stream.source import StreamSource
    from patchmill.loaders.sources.stream.stream import Stream


class Source(Protocol):
    """What a pipeline needs of a data set; reads must be safe from many threads at once.

    A source may also have `prefetch(ids)`, which is told what will be read soon and does not wait.
    """

    name: str  # how the user would name it, for messages
    fingerprint: str  # equal for equal lists of samples
    labels: np.ndarray | None  # int64, one per sample, or None

    @property
    def classes(self) -> list[str]:
        """Class names; empty where there are no labels."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """The encoded bytes of one sample; OSError where they cannot be had."""
        ...

    def where(self, index: int) -> str:
        """Where the sample lies, for the ledger: a path, or shard and offset."""
        ...


class Masked(Source, Protocol):
    """A source that can have masks, which say what of an image is foreground."""

    masked: bool  # whether there are any

    def mask(self, index: int) -> np.ndarray | None:
        """uint8 [height, width] of any size, 0 for background to 255; None where there is none.

        OSError or BadImage where it cannot be had; MillError for a mask that is not grey.
        """
        ...


def open_source(data: str | Path | Sequence[str | Path] | Source) -> Source:
    """As `open_data`, for what needs samples that are numbered."""
    source = open_data(data)
    if hasattr(source, "__len__"):
        return source  # type: ignore[return-value]
    raise MillError(f"{source.name} is streamed, which this cannot work on: fetch the shards")


def open_data(data: str | Path | Sequence[str | Path] | Source | Stream) -> Source | StreamSource:
    """A source, or a stream, from what the user wrote.

    A folder of images; WebDataset shards, as `train.tar`, `train-{000000..000146}.tar`,
    `train-*.tar`, a folder of tars or a list; URLs of shards, which are streamed; FFCV's
    `train.beton`; `scenes:10000` or `scenes(count=100, ...)` (a folder that is called `scenes` is
    `./scenes`).
    """
    if not isinstance(data, str | Path | list | tuple):
        return _checked(data)
    text = str(data)
    if isinstance(data, str) and (text == "scenes" or text.startswith(("scenes:", "scenes("))):
        return _scenes(text)
    if text.endswith(".beton") and isinstance(data, str | Path):
        from patchmill.loaders.sources.beton.source import Beton

        return Beton(data)
    from patchmill.loaders.sources.shards import paths

    if paths.are_shard_urls(data):
        from patchmill.loaders.sources.stream.stream import Stream

        return _flow(Stream(data))  # type: ignore[arg-type]  # no path is a URL
    if paths.are_shard_paths(data):
        from patchmill.loaders.sources.shards.source import Shards

        return Shards(data)
    from patchmill.loaders.sources.folder import Folder

    return Folder(data)  # type: ignore[arg-type]  # a list is shards


def _flow(stream: Stream) -> StreamSource:
    from patchmill.loaders.sources.stream.source import StreamSource

    return StreamSource(stream)


def _scenes(text: str) -> Source:
    from patchmill.loaders.common import calls
    from patchmill.loaders.sources.scenes.source import Scenes

    _, colon, count = text.partition(":")
    if not text.startswith("scenes:"):
        return calls.call(text, {"scenes": Scenes}, "source")
    if not (colon and count.isdecimal()):
        raise MillError(f"cannot read {text!r}: write scenes:10000 for ten thousand scenes")
    return Scenes(count=int(count))


def _checked(data: Any) -> Source | StreamSource:
    if hasattr(data, "samples") and hasattr(data, "shards"):
        return _flow(data)
    if hasattr(data, "read") and hasattr(data, "where") and hasattr(data, "fingerprint"):
        return data
    raise MillError(
        f"cannot read data from {data!r}: give a folder, shards, 'scenes:1000' or a source"
    )
