"""The image and label columns of a Parquet file, and the class names in its schema."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.names import IMAGE_NAMES, LABEL_NAMES
from patchmill.loaders.sources.parquet import footer
from patchmill.loaders.sources.parquet.footer import Group

log = logging.getLogger("patchmill")


@dataclass(frozen=True)
class Fields:
    """The columns of a file that are read."""

    image: str  # path of the bytes column, such as `image.bytes`
    label: str | None
    classes: list[str]


def open_file(path: str) -> tuple[Any, list[Group]]:
    """pyarrow's ParquetFile and the checked row groups; MillError if unreadable or no pyarrow."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise MillError(
            f"{path} needs pyarrow: pip install pyarrow, or 'patchmill[parquet]'"
        ) from None
    with readable(path):
        groups = footer.read(path)
        opened = parquet.ParquetFile(path)
        _check_values(opened.schema, groups)
    return opened, groups


def _check_values(schema: Any, groups: list[Group]) -> None:
    """Raise a ValueError if a column that is not a list lacks values for some rows."""
    lists = [schema.column(i).max_repetition_level > 0 for i in range(len(schema))]
    for number, group in enumerate(groups):
        if len(group.chunks) != len(lists):
            raise ValueError(f"its row group {number} does not have the columns of the schema")
        for listed, chunk in zip(lists, group.chunks, strict=True):
            if chunk and chunk.values != group.rows and not listed:
                raise ValueError(f"a column of its row group {number} lacks values for some rows")


@contextlib.contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn everything that pyarrow raises for damaged data into a MillError of one sentence."""
    from pyarrow import ArrowException

    try:
        yield
    except (
        ArrowException, ArithmeticError, LookupError, MemoryError, OSError, ValueError
    ) as error:  # fmt: skip
        problem = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
        raise MillError(f"cannot read {what}: {problem}") from None


def holds_images(path: str) -> bool:
    """True for a file with a column of encoded images, False for a list of paths."""
    return bool(_image_columns(open_file(path)[0].schema_arrow))


def choose(name: str, schema: Any, image: str | None, label: str | None) -> Fields:
    """The columns to read: those given, or those that the schema's features or names suggest."""
    features = _features(schema)
    images = _image_columns(schema)
    if image is not None and image not in images:
        listed = _listed(images or schema.names)
        raise MillError(f"{name} has no column {image!r} of image bytes; it has: {listed}")
    if not images:
        raise MillError(
            f"{name} has no column of image bytes, nor one named path; its columns are: "
            f"{_listed(schema.names)}"
        )
    declared = [one for one in images if features.get(one, {}).get("_type") == "Image"]
    named = [one for one in IMAGE_NAMES if one in images]
    chosen = image or (declared or named or list(images))[0]
    if image is None and len(images) > 1:
        log.info("%s: images from the column %s, of %s", name, chosen, _listed(images))
    return Fields(images[chosen], *_labels(name, schema, features, label))


def class_names(name: str, schema: Any) -> list[str]:
    """Names of the classes of the label column, if the schema has them."""
    return _labels(name, schema, _features(schema), None)[1]


def _labels(
    name: str, schema: Any, features: dict[str, Any], label: str | None
) -> tuple[str | None, list[str]]:
    label = _label_column(name, schema, features, label)
    names = features.get(label or "", {}).get("names") or []
    return label, [str(one) for one in names]


def leaf(opened: Any, path: str, fields: Fields) -> int:
    """The index of the bytes column among the file's leaves."""
    for column in range(opened.metadata.num_columns):
        if opened.schema.column(column).path == fields.image:
            return column
    raise MillError(
        f"{path} has no column {fields.image}, unlike the first file: give files of one data set"
    )


def _image_columns(schema: Any) -> dict[str, str]:
    """Columns that hold encoded images: name, and path of the bytes column."""
    from pyarrow import types

    found = {}
    for field in schema:
        kind = field.type
        if types.is_struct(kind):
            names = [kind.field(i).name for i in range(kind.num_fields)]
            if "bytes" in names and _is_bytes(kind.field(names.index("bytes")).type):
                found[field.name] = f"{field.name}.bytes"
        elif _is_bytes(kind):
            found[field.name] = field.name
    return found


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind)


def _label_column(
    name: str, schema: Any, features: dict[str, Any], label: str | None
) -> str | None:
    if label is not None:
        if label not in schema.names:
            listed = _listed(schema.names)
            raise MillError(f"{name} has no column {label!r}; its columns are: {listed}")
        return label
    classes = [one for one in schema.names if features.get(one, {}).get("_type") == "ClassLabel"]
    candidates = [one for one in LABEL_NAMES if one in (classes or schema.names)] or classes
    if len(classes) > 1:
        log.info("%s: labels from the column %s, of %s", name, candidates[0], _listed(classes))
    return candidates[0] if candidates else None


def _features(schema: Any) -> dict[str, Any]:
    """Hugging Face's description of the columns; empty if there is none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: one for name, one in features.items() if isinstance(one, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _listed(names: Sequence[str] | dict[str, str]) -> str:
    names = list(names)
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") or "none"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
