"""Sources of encoded images: numbered lists of encoded bytes with labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.loaders.decoded.images import DecodedImages
    from patchmill.loaders.sources.stream.source import StreamSource
    from patchmill.loaders.sources.stream.stream import Stream


class SimpleSource(Protocol):
    """The minimal interface of a custom source; reads must be thread-safe.

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
        """Return the encoded bytes of one sample; raise OSError if they cannot be read."""
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

    def read_many(self, ids: np.ndarray, memory: np.ndarray) -> list[bytes | None]:
        """Read small samples faster than `read` does; None for each sample left to `read`.

        `memory` (uint8) is scratch space. A sample that cannot be read is None, too.
        """
        ...

    def read_into(self, ids: np.ndarray, memory: np.ndarray) -> np.ndarray | None:
        """Read samples into `memory` (uint8), without a Python object for each.

        Returns int64 [N, 2]: the start and end of each sample there, or -1 for those left to
        `read`. None if the source does not support this.
        """
        ...

    def stamp(self, index: int) -> int | None:
        """A number from 1 to 2**64 - 1 that changes with the sample's bytes, without reading them.

        None if only the bytes themselves can show a change; 0 while they are changing. OSError for
        a missing sample.
        """
        ...

    def labels_of(self, ids: np.ndarray) -> np.ndarray | None:
        """int64 labels of these samples; None for a source without labels."""
        ...

    def decoded_images(self) -> DecodedImages | None:
        """Images that the source holds decoded (always the same ones); None if it holds none."""
        ...

    def substitute(self, seed: int, epoch: int, id: int, attempt: int) -> int:
        """The sample to read in place of an unreadable one; the same after a resume."""
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


class DataSet(Protocol):
    """Any numbered items with images in them: PIL images, arrays, tensors or encoded bytes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def open_source(data: str | Path | Sequence[Any] | SimpleSource | DataSet) -> Source:
    """`open_data` for callers that need numbered samples; MillError for streams."""
    source = open_data(data)
    if source.sample_count is not None:
        return source  # type: ignore[return-value]
    raise MillError(
        f"{source.name} is streamed, but random access by index is needed here: download the shards"
    )


def open_data(
    data: str | Path | Sequence[Any] | SimpleSource | Source | StreamSource | Stream | DataSet,
) -> Source | StreamSource:
    """Open data of any supported kind.

    A folder of images; WebDataset shards as `train.tar`, `train-{000000..000146}.tar`,
    `train-*.tar`, a folder of tars or a list; a tar of class folders or of class tars; `photos.zip`
    or a folder in it, `photos.zip/train`; `photos.lmdb`; URLs of shards, which are streamed; FFCV's
    `train.beton`; Parquet files with images, also as `hf://datasets/OWNER/NAME`; a list of images
    in `train.csv`, `.tsv`, `.jsonl` or `.parquet`; `scenes:10000` or `scenes(count=100, ...)`
    (write `./scenes` for a folder of that name); paths, or pairs of path and label; a data set
    with `__len__` and `__getitem__`; a source object, or `module:Name(key=value)`, which makes one.
    """
    from patchmill.loaders.sources import recognise

    return recognise.open_any(data)
