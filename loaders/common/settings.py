"""Dataclasses to plain data and back, every setting checked against its annotation.

Where a setting may be one of several dataclasses, each has a `kind` that tells them apart.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError


def to_plain(value: Any) -> Any:
    """Mappings, lists and numbers, as YAML and JSON know them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": value.kind, **plain} if hasattr(value, "kind") else plain
    return [to_plain(item) for item in value] if isinstance(value, tuple) else value


def from_plain(cls: Any, data: Any, where: str) -> Any:
    """The dataclass that `data` describes; `where` is how messages call it."""
    if not isinstance(data, dict):
        raise MillError(f"{where} must be a mapping of settings, not {data!r}")
    known = _annotations(cls)
    for key in data:
        if key not in known:
            raise MillError(f"{where} has no setting {key!r}{nearest(str(key), known)}")
    needed = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
    missing = [name for name in needed if name not in data]
    if missing:
        raise MillError(f"{where} lacks {' and '.join(missing)}")
    return cls(**{key: _typed(known[key], v, f"{where}: {key}") for key, v in data.items()})


def typed_fields(value: Any) -> dict[str, Any]:
    """A dataclass's fields as their annotations want them, so that equal values look equal."""
    cls: Any = type(value)
    return {k: _typed(t, getattr(value, k), k) for k, t in _annotations(cls).items()}


def typed_arguments(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A function's arguments as its annotations want them."""
    known = typing.get_type_hints(function)
    return {k: _typed(known[k], v, f"{function.__name__}: {k}") for k, v in arguments.items()}


def _typed(annotation: Any, value: Any, where: str) -> Any:
    """One setting: numbers become finite and of their type, lists tuples, mappings dataclasses."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    options = typing.get_args(annotation) if union else (annotation,)
    if dataclasses.is_dataclass(type(value)) and type(value) in options:
        return from_plain(type(value), vars(value), where)
    if any(hasattr(option, "kind") for option in options):
        return _of_a_kind({option.kind: option for option in options}, value, where)
    for option in options:
        if option is type(None) and value is None:
            return None
        if dataclasses.is_dataclass(option) and isinstance(value, dict):
            return from_plain(option, value, where)
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            of = typing.get_args(option)
            items = [of[0]] * len(value) if of[-1] is Ellipsis else of
            if len(items) == len(value):
                return _typed_items(items, value, where)
        if isinstance(value, bool):
            if option is bool:
                return value
        elif option is int and isinstance(value, numbers.Integral):
            return int(value)
        elif option is float and isinstance(value, numbers.Real) and _finite(value):
            return float(value)
        elif option is str and isinstance(value, str):
            return value
    raise MillError(f"{where} must be {' or '.join(map(_name, options))}, not {value!r}")


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _of_a_kind(kinds: dict[str, type], value: Any, where: str) -> Any:
    data = dict(value) if isinstance(value, dict) else {}
    kind = data.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise MillError(f"{where} must be a mapping whose kind is one of: {', '.join(kinds)}")
    return from_plain(kinds[kind], data, where)


def _typed_items(annotations: Sequence[Any], values: Sequence[Any], where: str) -> tuple[Any, ...]:
    typed = []
    for i, (annotation, value) in enumerate(zip(annotations, values, strict=True)):
        item = where
        if dataclasses.is_dataclass(annotation):
            name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
            item = f"{where} {name!r}" if name else f"{where} number {i + 1}"
        typed.append(_typed(annotation, value, item))
    return tuple(typed)


@functools.lru_cache(maxsize=64)
def _annotations(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _name(annotation: Any) -> str:
    """How messages call a type."""
    if typing.get_origin(annotation) is tuple:
        items = typing.get_args(annotation)
        of = "mappings" if dataclasses.is_dataclass(items[0]) else "numbers"
        return f"a list of {of}" if items[-1] is Ellipsis else f"a list of {len(items)} {of}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return "nothing" if annotation is type(None) else names.get(annotation, "a mapping of settings")
