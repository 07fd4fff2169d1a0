"""Which members of a shard make a sample, by WebDataset's rule.

Members whose paths are equal up to the first dot of the base name make one sample; what follows
that dot is the extension, in any case:

- the image: a member whose extension is an image type ("a.jpg"), or the only one that ends in
  one ("a.v2.jpg") but for the mask; where there are several types the first of EXTENSIONS;
- its label: the integer in "a.cls" (ASCII), else `label` or `class` of the object in "a.json"
  where that is an integer; other members of the object, and other values, mean nothing here;
- its mask: "a.mask.png".

Everything else is passed over, and so are hidden files and WebDataset's own `__names__`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TypeVar

from patchmill.loaders.sources.folder import EXTENSIONS

MASK, CLASS, JSON = "mask.png", "cls", "json"

Part = TypeVar("Part")

_RANK = {extension: rank for rank, extension in enumerate(EXTENSIONS)}
_META = re.compile(rb"__[^/]*__($|/)")


class SampleError(Exception):
    """What is wrong with a member: the end of a sentence that begins with its name."""


def split_name(name: bytes) -> tuple[bytes, str] | None:
    """The key and the lower-case extension, where the member can be a part of a sample."""
    base = name.rfind(b"/") + 1
    dot = name.find(b".", base)
    if dot <= base or (name.startswith(b"__") and _META.match(name)):
        return None
    extension = name[dot + 1 :].lower().decode("ascii", "replace")
    last = extension.rpartition(".")[2]
    if last in _RANK or extension in (CLASS, JSON):
        return name[:dot], extension
    return None


def image_member(parts: Mapping[str, Part]) -> Part | None:
    """The image among a sample's parts, by extension; a SampleError where that is not clear."""
    plain = [extension for extension in parts if extension in _RANK]
    if plain:
        return parts[min(plain, key=_RANK.__getitem__)]
    dotted = [name for name in parts if name not in (MASK, CLASS, JSON)]
    if len(dotted) > 1:
        raise SampleError(
            f"has {len(dotted)} images (.{dotted[0]}, .{dotted[1]}): call the one to take .jpg or "
            ".png, or put no dot into the names before the ending"
        )
    return parts[dotted[0]] if dotted else None


def parse_label(extension: str, data: bytes) -> int | None:
    """What a "cls" or "json" member says; a SampleError where it cannot be read."""
    try:
        if extension == CLASS:
            return _check_label(int(data.decode("ascii")))
        found = json.loads(data)
    except (ValueError, RecursionError):
        shown = data[:40].decode("ascii", "replace")
        wanted = "an integer" if extension == CLASS else "JSON"
        raise SampleError(f"is not {wanted}: {shown!r}") from None
    for field in ("label", "class") if isinstance(found, dict) else ():
        if isinstance(found.get(field), int) and not isinstance(found[field], bool):
            return _check_label(found[field])
    return None


def _check_label(label: int) -> int:
    if not -(2**63) <= label < 2**63:
        raise SampleError(f"holds a label that has more than 64 bits: {label}")
    return label
