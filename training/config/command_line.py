"""Command lines of key=value arguments, typed by dataclass fields: evaluate.py and export.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief
from patchmill.loaders.common.settings import describe_type, field_annotations, from_plain
from patchmill.training.config import overrides, usage


def split(arguments: Sequence[str]) -> dict[str, str]:
    """Key -> text; the last argument for a key wins."""
    texts = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.replace(".", "_").isidentifier():
            raise MillError(f"cannot read {brief(argument)}: write key=value, as in run=runs/NAME")
        texts[key] = text
    return texts


def parse(cls: type, texts: Mapping[str, str]) -> Any:
    """A dataclass from the arguments that name its fields; others are ignored."""
    annotations = field_annotations(cls)
    values = {
        key: overrides.value(key, text, annotations[key])
        for key, text in texts.items()
        if key in annotations
    }
    return from_plain(cls, values)


def refuse_unknown(texts: Mapping[str, str], *classes: type, keys: Sequence[str] = ()) -> None:
    """Raise a MillError for an argument that is neither a field of `classes` nor one of `keys`."""
    annotations: dict[str, Any] = {}
    for cls in classes:
        annotations |= field_annotations(cls)
    annotations |= dict.fromkeys(keys)
    for key in texts:
        overrides.annotation(key, annotations)


def describe(
    cls: type, prefix: str = "", names: Sequence[str] = (), default: str = ""
) -> Iterator[str]:
    """One line of help per field of a dataclass."""
    comments, defaults, annotations = usage.comments(cls), cls(), field_annotations(cls)
    for name in names or annotations:
        value = default or usage.format_value(getattr(defaults, name))
        kind = describe_type(annotations[name])
        yield f"  {prefix + name:<20} {value:<11} {comments[name]} ({kind})"
