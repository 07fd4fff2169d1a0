"""Recognise data sets of other libraries, and read them by path or as bytes where possible."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.loaders.sources.numbered import NumberedSource

log = logging.getLogger("patchmill")

TAKEN = (
    "a folder, shards, a .beton, Parquet files, a list (.csv, .tsv, .jsonl), 'scenes:1000', a list "
    "of paths, or a data set with __len__ and __getitem__"
)


def open_object(data: Any) -> NumberedSource:
    """A source of a data set's images; MillError for anything that is not a data set."""
    from patchmill.loaders.sources.objects.dataset import Items

    kind = type(data)
    package = kind.__module__.partition(".")[0]
    if isinstance(data, Mapping):
        raise _of_splits(data)
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise MillError(_refusal(data))
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        raise MillError(
            f"a {kind.__name__} does not say which columns are paths and labels: give pairs, as in "
            "list(zip(table['path'], table['label']))"
        )
    if package == "torch" and kind.__name__ == "Subset":
        return _open_subset(data)
    if package == "datasets" and hasattr(data, "features") and hasattr(data, "cast_column"):
        from patchmill.loaders.sources.objects.hugging_face import open_dataset

        return open_dataset(data)
    if (listed := _listed_images(data)) is not None:
        return listed
    if isinstance(data, bytes | bytearray | memoryview):
        raise MillError(_refusal(data))
    return Items(data)


def _open_subset(data: Any) -> NumberedSource:
    """torch's Subset; its own samples are read as those of the whole data set."""
    from patchmill.loaders.sources import open_source
    from patchmill.loaders.sources.subset import Subset

    return Subset(open_source(data.dataset), list(data.indices))


def _listed_images(data: Any) -> NumberedSource | None:
    """Images by path, of a data set like torchvision's ImageFolder or a column of paths."""
    from patchmill.loaders.sources.lists import path_list

    samples = getattr(data, "samples", None)
    loader = getattr(data, "loader", None)
    by_default = loader is None or getattr(loader, "__module__", "").startswith("torchvision.")
    if isinstance(samples, list) and samples and by_default and len(samples) == len(data):
        if all(_is_labelled_path(sample) for sample in samples):
            return _image_folder(data, samples)
    if not hasattr(data, "dtype") or not len(data):
        return None
    first = data[0] if not hasattr(data, "iloc") else data.iloc[0]
    return path_list.open_paths(list(data)) if isinstance(first, str) else None


def _is_labelled_path(sample: Any) -> bool:
    return (
        isinstance(sample, tuple)
        and len(sample) == 2
        and isinstance(sample[0], str | os.PathLike)
        and isinstance(sample[1], int)
    )


def _image_folder(data: Any, samples: list[tuple[str, int]]) -> NumberedSource:
    import numpy as np

    from patchmill.loaders.sources.lists.path_list import Paths

    if getattr(data, "transform", None) is not None:
        log.info("the transform of %s is ignored: the recipe makes the views", type(data).__name__)
    root = os.path.expanduser(str(getattr(data, "root", ".")))
    paths = [os.path.relpath(path, root) for path, _ in samples]
    labels = np.array([label for _, label in samples], np.int64)
    name = f"{type(data).__name__} of {root}"
    return Paths(name, root, paths, labels, list(getattr(data, "classes", [])))


def _of_splits(data: Mapping[Any, Any]) -> MillError:
    listed = ", ".join(repr(key) for key in list(data)[:4])
    return MillError(
        f"the {type(data).__name__} holds several things ({listed}): give one of them, as in "
        f"data[{next(iter(data), 'train')!r}]"
    )


def _refusal(data: Any) -> str:
    if hasattr(data, "__iter__") and hasattr(data, "__next__"):
        problem = "can be read once and in order only:"
    elif type(data).__module__.partition(".")[0] == "datasets":
        problem = "is streamed: load it without streaming=True, or"
    elif hasattr(data, "batch_sampler") and hasattr(data, "dataset"):
        return (
            f"cannot read data from a {type(data).__name__}, which makes batches: give its data "
            "set, loader.dataset; the recipe replaces its transform"
        )
    elif hasattr(data, "__iter__") and not isinstance(data, bytes | bytearray | memoryview):
        problem = "has no length and no items by index:"
    else:
        problem = "is not a data set:"
    plain = data is None or isinstance(data, int | float)
    shown = repr(data) if plain else f"an object of type {type(data).__name__}"
    return f"cannot read data from {shown}, which {problem} give {TAKEN}"
