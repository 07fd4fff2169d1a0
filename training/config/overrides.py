"""The user's words, `method=dilo optim.lr=0.1`: choices from groups, and settings."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from patchmill.loaders.common import settings as typed
from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError

FOLDER = Path(__file__).parent
GROUPS = ("method", "data", "model", "optim", "evaluate", "scale")


def choices(group: str) -> dict[str, str]:
    """What there is in a group -> what it is, which its file's first comment says."""
    return {path.stem: _title(path) for path in sorted((FOLDER / group).glob("*.yaml"))}


def split(words: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Group -> choice and key -> what the user wrote; of two for the same thing the last holds."""
    chosen: dict[str, str] = {}
    settings: dict[str, str] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.replace(".", "_").isidentifier():
            raise MillError(f"cannot read {word!r}: write key=value, as in optim.lr=0.1")
        (chosen if key in GROUPS else settings)[key] = text
    for group, choice in chosen.items():
        _check_choice(group, choice)
    return chosen, settings


def annotation(key: str, known: Mapping[str, Any]) -> Any:
    """The annotation of a key such as `optim.lr`; a MillError with the nearest if it has none."""
    if key in known:
        return known[key]
    if any(other.startswith(f"{key}.") for other in known):
        raise MillError(f"{key} is a section: set one of its keys, as in {_first(key, known)}=...")
    same = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = f"; did you mean {' or '.join(map(repr, same))}?" if same else nearest(key, known)
    if "there are" in hint:
        hint = "; --help lists them all"
    raise MillError(f"there is no setting {key!r}{hint}")


def keys(cls: type, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> annotation, of a dataclass and the dataclasses in it."""
    found: dict[str, Any] = {}
    for name, kind in typed.field_annotations(cls).items():
        nested = isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")
        found |= keys(kind, f"{prefix}{name}.") if nested else {prefix + name: kind}
    return found


def value(key: str, text: str, annotation: Any) -> Any:
    """What the user wrote for a setting of that type. Text is taken as it stands: quotes, brackets
    and commas mean nothing in it, so that recipes and paths need no quoting of their own."""
    kinds = typed.union_members(annotation)
    if types.NoneType in kinds and text.lower() in ("null", "none"):
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if any(kind is str or typing.get_origin(kind) is Literal for kind in kinds):
        return text
    return _parsed(key, text, annotation)


def _parsed(key: str, text: str, annotation: Any) -> Any:
    """Numbers, truth values and lists, as Hydra's grammar has them."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import QuotedString
    from hydra.errors import HydraException

    complaint = MillError(f"{key} must be {typed.describe_type(annotation)}, not {text!r}")
    try:
        read = OverridesParser.create().parse_override(f"{key}={text}")
    except HydraException:
        raise complaint from None
    if read.is_sweep_override():
        raise MillError(f"{key} takes one value here, not {text!r}; lists are written [1,2]")
    found = read.value()
    if isinstance(found, QuotedString | dict):
        raise complaint
    return found


def _check_choice(group: str, choice: str) -> None:
    known = choices(group)
    if choice in known:
        return
    own = "; for images of your own: data=folder data.root=DIR" if group == "data" else ""
    raise MillError(f"there is no {group}={choice}{nearest(choice, known)}{own}")


def _first(section: str, known: Mapping[str, Any]) -> str:
    return next(key for key in known if key.startswith(f"{section}."))


def _title(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#")]
    return next((line for line in comments if not line.startswith("@")), "")
