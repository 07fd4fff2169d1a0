"""Parse command-line overrides such as `method=dilo optim.lr=0.1`: group choices and settings."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from patchmill.loaders.common import settings as typed
from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief
from patchmill.training.config import own_method

FOLDER = Path(__file__).parent
GROUPS = ("method", "data", "model", "optim", "evaluate", "scale")


def choices(group: str) -> dict[str, str]:
    """Choices of a group -> their titles, taken from the first comments of their files."""
    return {path.stem: _title(path) for path in sorted((FOLDER / group).glob("*.yaml"))}


def split(arguments: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Group -> choice, and key -> text; the last override of a key wins."""
    chosen: dict[str, str] = {}
    settings: dict[str, str] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.replace(".", "_").isidentifier():
            raise MillError(f"cannot read {brief(argument)}: write key=value, as in optim.lr=0.1")
        (chosen if key in GROUPS else settings)[key] = text
    for group, choice in chosen.items():
        _check_choice(group, choice)
    return chosen, settings


def annotation(key: str, annotations: Mapping[str, Any]) -> Any:
    """Annotation of a key such as `optim.lr`; for an unknown key, a MillError names the nearest."""
    if key in annotations:
        return annotations[key]
    if in_section := [other for other in annotations if other.startswith(f"{key}.")]:
        raise MillError(f"{key} is a section: set one of its keys, as in {in_section[0]}=...")
    last_part = key.rpartition(".")[2]
    same = [other for other in annotations if other.rpartition(".")[2] == last_part]
    hint = f"; did you mean {' or '.join(map(repr, same))}?" if same else nearest(key, annotations)
    if "there are" in hint:
        hint = "; --help lists them all"
    raise MillError(f"there is no setting {brief(key)}{hint}")


def keys(cls: type, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> annotation, for a dataclass and its nested dataclasses."""
    annotations: dict[str, Any] = {}
    for name, kind in typed.field_annotations(cls).items():
        nested = isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")
        annotations |= keys(kind, f"{prefix}{name}.") if nested else {prefix + name: kind}
    return annotations


def value(key: str, text: str, annotation: Any) -> Any:
    """Value of a setting from the user's text.

    String settings take the text verbatim: recipes and paths need no quoting.
    """
    kinds = typed.union_members(annotation)
    if types.NoneType in kinds and text.lower() in ("null", "none"):
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    names = [name for kind in kinds for name in typing.get_args(kind) if _is_literal(kind)]
    others = [
        kind for kind in kinds if not _is_literal(kind) and kind not in (bool, types.NoneType)
    ]
    if str in kinds or text in names or (names and not others):
        return text
    return _parsed(key, text, annotation)


def _is_literal(kind: Any) -> bool:
    return typing.get_origin(kind) is Literal


def _parsed(key: str, text: str, annotation: Any) -> Any:
    """Parse numbers, booleans and lists by Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import QuotedString
    from hydra.errors import HydraException

    type_error = MillError(f"{key} must be {typed.describe_type(annotation)}, not {brief(text)}")
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
    except (HydraException, ValueError, RecursionError):  # from 5,000 digits, or as many brackets
        raise type_error from None
    if override.is_sweep_override():
        raise MillError(f"{key} takes one value here, not {brief(text)}; lists are written [1,2]")
    parsed = override.value()
    if isinstance(parsed, QuotedString | dict):
        raise type_error
    return parsed


def _check_choice(group: str, choice: str) -> None:
    available = choices(group)
    if choice in available or (group == "method" and own_method.is_own(choice)):
        return
    hint = "; for images of your own: data=folder data.root=DIR" if group == "data" else ""
    if group == "method" and "." in choice:
        hint = "; one of your own is module:Class"
    raise MillError(f"there is no {group}={choice}{nearest(choice, available)}{hint}")


def _title(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#")]
    return next((line for line in comments if not line.startswith("@")), "")
