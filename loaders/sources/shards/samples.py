"""Group members of a shard into samples by WebDataset's rule.

The path up to the first dot of the base name is the key, shared by the members of a sample; the
rest is the extension, whose case is ignored:

- image: the member whose extension is an image type ("a.jpg"), or the only one that ends in an
  image type ("a.v2.jpg"), not counting masks; among several types, the first in EXTENSIONS;
- label: the integer in "a.cls" (ASCII), else `label` or `class` of the JSON object in "a.json" if
  that is an integer; other JSON fields and values are ignored;
- mask: "a.mask.png".

All other members are ignored, as are hidden files and WebDataset's reserved `__names__`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TypeVar

from patchmill.loaders.sources.folder_listing import EXTENSIONS

MASK, CLASS, JSON = "mask.png", "cls", "json"

T = TypeVar("T")

_RANK = {extension: rank for rank, extension in enumerate(EXTENSIONS)}
_RESERVED = re.compile(rb"__[^/]*__($|/)")


class SampleError(Exception):
    """A problem with a member; the message continues a sentence that begins with its name."""


def split_name(name: bytes) -> tuple[bytes, str] | None:
    """Key and lower-case extension of a member; None if it cannot belong to a sample."""
    base = name.rfind(b"/") + 1
    dot = name.find(b".", base)
    if dot <= base or (name.startswith(b"__") and _RESERVED.match(name)):
        return None
    extension = name[dot + 1 :].lower().decode("ascii", "replace")
    last = extension.rpartition(".")[2]
    if last in _RANK or extension in (CLASS, JSON):
        return name[:dot], extension
    return None


def image_member(members: Mapping[str, T]) -> T | None:
    """The image among a sample's members by extension; SampleError if it is ambiguous."""
    plain = [extension for extension in members if extension in _RANK]
    if plain:
        return members[min(plain, key=_RANK.__getitem__)]
    dotted = [name for name in members if name not in (MASK, CLASS, JSON)]
    if len(dotted) > 1:
        raise SampleError(
            f"has {len(dotted)} images (.{dotted[0]}, .{dotted[1]}): name the one to use .jpg or "
            ".png, or use no dots in names before the extension"
        )
    return members[dotted[0]] if dotted else None


def parse_label(extension: str, data: bytes) -> int | None:
    """The label in a "cls" or "json" member; SampleError if it cannot be parsed."""
    try:
        if extension == CLASS:
            return _check_label(int(data.decode("ascii")))
        content = json.loads(data)
    except (ValueError, RecursionError):
        shown = data[:40].decode("ascii", "replace")
        wanted = "an integer" if extension == CLASS else "JSON"
        raise SampleError(f"is not {wanted}: {shown!r}") from None
    for field in ("label", "class") if isinstance(content, dict) else ():
        if isinstance(content.get(field), int) and not isinstance(content[field], bool):
            return _check_label(content[field])
    return None


def _check_label(label: int) -> int:
    if not -(2**63) <= label < 2**63:
        raise SampleError(f"holds a label of more than 64 bits: {label}")
    return label
