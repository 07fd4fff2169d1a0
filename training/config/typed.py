"""Plain data to dataclasses, each value checked against its field's annotation."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError


@dataclasses.dataclass(frozen=True)
class Span:
    """The numbers a setting may be: `Annotated[float, Span(0, 1)]`. Both ends are allowed."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf  # which is not allowed itself

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most and number > self.above

    def __str__(self) -> str:
        if math.isfinite(self.above):
            return f"above {self.above:g}"
        if math.isfinite(self.most):
            return f"from {self.least:g} to {self.most:g}"
        return f"of at least {self.least:g}" if math.isfinite(self.least) else ""


@functools.lru_cache(maxsize=64)
def fields(cls: type) -> dict[str, Any]:
    """Name -> annotation of a dataclass, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def make(cls: type, data: Mapping[str, Any], where: str = "") -> Any:
    """The dataclass `cls` that `data` describes; `where` is the prefix of its keys, as `optim.`."""
    known = fields(cls)
    for key in data:
        if key not in known:
            raise MillError(f"there is no setting {where}{key}{nearest(str(key), known)}")
    return cls(**{key: check(known[key], data[key], where + key) for key in known if key in data})


def check(annotation: Any, value: Any, where: str) -> Any:
    """`value` as the annotation wants it; a MillError that names `where` if it cannot be."""
    for option in options(annotation):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            if isinstance(value, Mapping):
                return make(option, value, f"{where}.")
            continue
        found = _one(option, value, where)
        if found is not _NOT:
            return found
    raise MillError(
        f"{where} must be {describe(annotation)}, not {value!r}{_hint(annotation, value)}"
    )


def plain(value: Any) -> Any:
    """Dataclasses and sequences as mappings, lists and scalars, as YAML and JSON know them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; the annotation alone if it is none."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def describe(annotation: Any) -> str:
    """How messages and the help call a type: `a whole number of at least 1 or none`."""
    return " or ".join(map(_describe, options(annotation)))


# ---------------------------------------------------------------------------------- one annotation

_NOT = object()  # the value is not of that type


def _one(option: Any, value: Any, where: str) -> Any:
    origin, of = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Annotated:
        found = _one(of[0], value, where)
        return found if found is not _NOT and found in of[1] else _NOT
    if origin is Literal:
        return value if isinstance(value, str) and value in of else _NOT
    if origin in (tuple, list):
        return _sequence(option, value, where)
    return _scalar(option, value)


def _sequence(option: Any, value: Any, where: str) -> Any:
    if not isinstance(value, tuple | list):
        return _NOT
    kind, of = typing.get_origin(option), typing.get_args(option)
    each = [of[0]] * len(value) if kind is list or of[-1] is Ellipsis else list(of)
    if len(each) != len(value):
        return _NOT
    pairs = zip(each, value, strict=True)
    return kind(check(item, given, f"{where}[{i}]") for i, (item, given) in enumerate(pairs))


def _scalar(option: Any, value: Any) -> Any:
    if option is Any or (option is type(None) and value is None):
        return value
    if option is bool:
        return value if isinstance(value, bool) else _NOT
    if isinstance(value, bool):
        return _NOT
    if option is int and (isinstance(value, int) or (isinstance(value, float) and value % 1 == 0)):
        return int(value)
    if option is float and isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return float(value)
    return value if option is str and isinstance(value, str) else _NOT


def _hint(annotation: Any, value: Any) -> str:
    choices = [
        c for o in options(annotation) if typing.get_origin(o) is Literal for c in o.__args__
    ]
    close = nearest(value, dict.fromkeys(choices)) if isinstance(value, str) and choices else ""
    return close if "did you mean" in close else ""


def _describe(option: Any) -> str:
    origin, of = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Annotated:
        return f"{_describe(of[0])} {of[1]}".strip()
    if origin is Literal:
        return " | ".join(of)
    if origin in (tuple, list):
        many = origin is list or of[-1] is Ellipsis
        return "a list of numbers" if many else f"a list of {len(of)} numbers"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return "none" if option is type(None) else names.get(option, "a mapping of settings")
