"""Typed settings: dataclasses to plain data and back, each value checked against its annotation.

Annotations may be scalars, `Literal`, `Annotated[float, Bounds(0, 1)]`, tuples, lists, unions,
`Any` and further dataclasses. If a value may be one of several dataclasses, each of them has a
`kind` (a class variable) that the plain data names. A dataclass may list old names of its fields,
which plain data may still use, in a class variable `FORMER_NAMES` (old name -> new name). A class
with a static method `from_setting` parses its values itself; `setting_type` names them in messages.

Messages refer to a value by a prefix and its key: `optim.lr`, `views 'global': crop.scale`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import LONGEST, brief, printable


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The range of a number: `Annotated[float, Bounds(0, 1)]`. `least` and `most` are inclusive."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf  # exclusive lower bound

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most and number > self.above

    def __str__(self) -> str:
        if math.isfinite(self.above):
            most = f" and at most {self.most:g}" if math.isfinite(self.most) else ""
            return f"above {self.above:g}{most}"
        if math.isfinite(self.most):
            return f"from {self.least:g} to {self.most:g}"
        return f"of at least {self.least:g}" if math.isfinite(self.least) else ""


def to_plain(value: Any) -> Any:
    """Convert dataclasses and sequences to mappings, lists and scalars, for YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": value.kind, **plain} if hasattr(value, "kind") else plain
    return [to_plain(item) for item in value] if isinstance(value, tuple | list) else value


def from_plain(cls: Any, data: Any, prefix: str = "") -> Any:
    """Build the dataclass `cls` from `data`; messages put `prefix` before its keys."""
    if not isinstance(data, Mapping):
        raise MillError(
            f"{prefix.rstrip('.: ') or 'this'} must be a mapping of settings, not {brief(data)}"
        )
    annotations, former_names = field_annotations(cls), getattr(cls, "FORMER_NAMES", {})
    data = {former_names.get(key, key): value for key, value in data.items()}
    item, section = _split(prefix)
    for key in data:
        if key not in annotations:
            name = f"{section}{printable(key)[:LONGEST]}"
            raise MillError(f"{item}there is no setting {name}{nearest(str(key), annotations)}")
    missing = [section + name for name in _required(cls) if name not in data]
    if missing:
        raise MillError(f"{item}{' and '.join(missing)} must be given")
    return cls(**{k: checked(annotations[k], v, prefix + k) for k, v in data.items()})


def checked_fields(value: Any) -> dict[str, Any]:
    """A dataclass's fields, converted to their annotations, so that equal values look equal."""
    cls: Any = type(value)
    return {k: checked(t, getattr(value, k), k) for k, t in field_annotations(cls).items()}


def checked_arguments(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A function's arguments, converted to its annotations."""
    annotations = typing.get_type_hints(function, include_extras=True)
    prefix = f"{function.__name__}: "
    return {k: checked(annotations[k], v, prefix + k) for k, v in arguments.items()}


def checked(annotation: Any, value: Any, name: str) -> Any:
    """Convert `value` to `annotation`, or raise a MillError that refers to it as `name`."""
    options = union_members(annotation)
    if dataclasses.is_dataclass(type(value)) and type(value) in options:
        return from_plain(type(value), vars(value), f"{name}.")
    for option in options:
        if hasattr(option, "from_setting"):
            return option.from_setting(value, name)
    kinds = {option.kind: option for option in options if hasattr(option, "kind")}
    if kinds:
        return _of_a_kind(kinds, value, name)
    for option in options:
        result = _checked_option(option, value, name)
        if result is not _REFUSED:
            return result
    hint = _nearest_literal(options, value)
    raise MillError(f"{name} must be {describe_type(annotation)}, not {brief(value)}{hint}")


@functools.lru_cache(maxsize=64)
def field_annotations(cls: Any) -> dict[str, Any]:
    """Name -> annotation of a dataclass's fields, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def union_members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; any other annotation alone."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def describe_type(annotation: Any) -> str:
    """Describe a type, for messages and help: `a whole number of at least 1 or none`."""
    return " or ".join(map(_describe_option, union_members(annotation)))


# ------------------------------------------------------------------------------------------ values

_BEYOND = 2**64  # whole numbers must be smaller; one of 5,000 digits could not even be printed
_REFUSED = object()  # the value does not have that type


def _checked_option(option: Any, value: Any, name: str) -> Any:
    """Convert `value` to one member of a union; _REFUSED if that fails."""
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if dataclasses.is_dataclass(option):
        return from_plain(option, value, f"{name}.") if isinstance(value, Mapping) else _REFUSED
    if origin is typing.Annotated:
        result = _checked_option(arguments[0], value, name)
        return result if result is not _REFUSED and result in arguments[1] else _REFUSED
    if origin is Literal:
        return value if isinstance(value, str) and value in arguments else _REFUSED
    if origin in (tuple, list):
        return _checked_sequence(option, value, name)
    return _checked_scalar(option, value)


def _checked_sequence(option: Any, value: Any, name: str) -> Any:
    if not isinstance(value, tuple | list):
        return _REFUSED
    cls, arguments = typing.get_origin(option), typing.get_args(option)
    endless = cls is list or arguments[-1] is Ellipsis
    annotations = [arguments[0]] * len(value) if endless else list(arguments)
    if len(annotations) != len(value):
        return _REFUSED
    pairs = zip(annotations, value, strict=True)
    return cls(_checked_item(item, each, name, i) for i, (item, each) in enumerate(pairs))


def _checked_item(annotation: Any, value: Any, name: str, index: int) -> Any:
    if hasattr(annotation, "from_setting") or not dataclasses.is_dataclass(annotation):
        return checked(annotation, value, f"{name}[{index}]")
    title = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    prefix = f"{name} {brief(title)}: " if title else f"{name} number {index + 1}: "
    fields = vars(value) if type(value) is annotation else value
    return from_plain(annotation, fields, prefix)


def _checked_scalar(option: Any, value: Any) -> Any:
    if option is Any or (option is type(None) and value is None):
        return value
    if option is bool or isinstance(value, bool):
        return value if option is bool and isinstance(value, bool) else _REFUSED
    if option is int and isinstance(value, numbers.Integral | float) and value % 1 == 0:
        number = int(value)
        return number if -_BEYOND < number < _BEYOND else _REFUSED
    if option is float and isinstance(value, numbers.Real) and _is_finite(value):
        return float(value)
    return value if option is str and isinstance(value, str) else _REFUSED


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False


def _of_a_kind(kinds: Mapping[str, type], value: Any, name: str) -> Any:
    """Build one of several dataclasses, chosen by the value's `kind`."""
    data = dict(value) if isinstance(value, Mapping) else {}
    kind = data.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise MillError(f"{name} must be a mapping whose kind is one of: {', '.join(kinds)}")
    return from_plain(kinds[kind], data, f"{name}.")


def _required(cls: Any) -> list[str]:
    missing = dataclasses.MISSING
    fields = dataclasses.fields(cls)
    return [f.name for f in fields if f.default is missing and f.default_factory is missing]


# ---------------------------------------------------------------------------------------- messages


def _split(prefix: str) -> tuple[str, str]:
    """Split `views 'a': crop.` into `views 'a': ` and `crop.`."""
    item, colon, section = prefix.rpartition(": ")
    return item + colon, section


def _nearest_literal(options: Sequence[Any], value: Any) -> str:
    """`; did you mean 'two'?` if a Literal has a similar value, else nothing."""
    choices = [c for o in options if typing.get_origin(o) is Literal for c in typing.get_args(o)]
    close = nearest(value, dict.fromkeys(choices)) if isinstance(value, str) and choices else ""
    return close if "did you mean" in close else ""


def _describe_option(option: Any) -> str:
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Annotated:
        return f"{_describe_option(arguments[0])} {arguments[1]}".strip()
    if origin is Literal:
        return " | ".join(arguments)
    if origin in (tuple, list):
        items = "mappings" if dataclasses.is_dataclass(arguments[0]) else "numbers"
        items = getattr(arguments[0], "setting_type", items)
        endless = origin is list or arguments[-1] is Ellipsis
        return f"a list of {items}" if endless else f"a list of {len(arguments)} {items}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return "none" if option is type(None) else names.get(option, "a mapping of settings")
