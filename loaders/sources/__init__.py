"""Sources of encoded images: numbered lists of encoded bytes with labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.loaders.sources.stream.source import StreamSource
    from patchmill.loaders.sources.stream.stream import Stream


class SimpleSource(Protocol):
    """The minimal interface of a user's own source; reads must be thread-safe.

    Any other member of `Source` is optional; `numbered.AdaptedSource` adds the missing ones.
    """

    name: str  # for messages: what the user wrote to open it
    fingerprint: str  # equal for equal lists of samples
    labels: np.ndarray | None  # int64, one per sample, or None

    @property
    def classes(self) -> list[str]:
        """Class names; empty without labels."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """The encoded bytes of one sample; OSError if they cannot be read."""
        ...

    def where(self, index: int) -> str:
        """Location of a sample, for the ledger: a path, or shard and offset."""
        ...


class Source(SimpleSource, Protocol):
    """The full interface that loaders use; `numbered.NumberedSource` implements the defaults.

    `StreamSource` has the same members except `__len__`; its `sample_count` is None.
    """

    @property
    def masked(self) -> bool:
        """True if samples come with masks."""
        ...

    @property
    def sample_count(self) -> int | None:
        """Number of samples; None for a stream of unknown length."""
        ...

    def prefetch(self, ids: np.ndarray) -> None:
        """Announce samples that will be read soon; does not wait."""
        ...

    def labels_of(self, ids: np.ndarray) -> np.ndarray | None:
        """int64 labels of these samples; None where there are none."""
        ...

    def substitute(self, seed: int, epoch: int, id: int, attempt: int) -> int:
        """The sample read in place of an unreadable one; the same one after a resume."""
        ...

    def background_candidates(self, seed: int, epoch: int, id: int) -> list[int]:
        """Candidates for the background of sample `id`."""
        ...


class MaskedSource(Source, Protocol):
    """A source with foreground masks."""

    def mask(self, index: int) -> np.ndarray | None:
        """uint8 [height, width] of any size, 0 background to 255 foreground; None if missing.

        Raises OSError or BadImage if it cannot be read, MillError if it is not greyscale.
        """
        ...


def open_source(data: str | Path | Sequence[str | Path] | SimpleSource) -> Source:
    """`open_data` for callers that need numbered samples; MillError for streams."""
    source = open_data(data)
    if source.sample_count is not None:
        return source  # type: ignore[return-value]
    raise MillError(
        f"{source.name} is streamed, but numbered samples are needed here: download the shards"
    )


def open_data(
    data: str | Path | Sequence[str | Path] | SimpleSource | Source | StreamSource | Stream,
) -> Source | StreamSource:
    """Open what the user names as data.

    A folder of images; WebDataset shards, as `train.tar`, `train-{000000..000146}.tar`,
    `train-*.tar`, a folder of tars or a list; URLs of shards, which are streamed; FFCV's
    `train.beton`; `scenes:10000` or `scenes(count=100, ...)` (write `./scenes` for a folder of that
    name); or a source object.
    """
    if not isinstance(data, str | Path | list | tuple):
        return _adapt(data)
    text = str(data)
    if isinstance(data, str) and (text == "scenes" or text.startswith(("scenes:", "scenes("))):
        return _open_scenes(text)
    if text.endswith(".beton") and isinstance(data, str | Path):
        from patchmill.loaders.sources.beton.source import Beton

        return Beton(data)
    from patchmill.loaders.sources.shards import paths

    if paths.are_shard_urls(data):
        from patchmill.loaders.sources.stream.stream import Stream

        return _open_stream(Stream(data))  # type: ignore[arg-type]  # no path is a URL
    if paths.are_shard_paths(data):
        from patchmill.loaders.sources.shards.source import Shards

        return Shards(data)
    from patchmill.loaders.sources.folder import Folder

    return Folder(data)  # type: ignore[arg-type]  # a list is shards


def _open_stream(stream: Stream) -> StreamSource:
    from patchmill.loaders.sources.stream.source import StreamSource

    return StreamSource(stream)


def _open_scenes(text: str) -> Source:
    from patchmill.loaders.common import calls
    from patchmill.loaders.sources.scenes.source import Scenes

    _, colon, count = text.partition(":")
    if not text.startswith("scenes:"):
        return calls.call(text, {"scenes": Scenes}, "source")
    if not (colon and count.isdecimal()):
        raise MillError(f"cannot read {text!r}: write scenes:10000 for ten thousand scenes")
    return Scenes(count=int(count))


def _adapt(data: Any) -> Source | StreamSource:
    if hasattr(data, "samples") and hasattr(data, "shards"):
        return _open_stream(data)
    if hasattr(data, "read") and hasattr(data, "where") and hasattr(data, "fingerprint"):
        from patchmill.loaders.sources.numbered import AdaptedSource

        complete = hasattr(data, "sample_count") and hasattr(data, "labels_of")
        return data if complete else AdaptedSource(data)
    raise MillError(
        f"cannot read data from {data!r}: give a folder, shards, 'scenes:1000' or a source"
    )
