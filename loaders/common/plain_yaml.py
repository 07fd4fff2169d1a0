"""YAML from outside as plain data: mappings, lists and scalars, of bounded depth and size.

Aliases are few bytes for many values: a list of ten lists, each ten times the one before, is a
billion values after nine lines. They are counted before they are made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

DEEPEST = 64  # mappings and lists within each other
MOST_VALUES = 100_000  # with all aliases written out
_LONGEST = 300  # characters of a reason


class NotYaml(ValueError):
    """The text is no YAML of plain data; the message says why, on one line."""


class _Extent(NamedTuple):
    """Height of a node and the number of values in it, aliases written out."""

    height: int
    values: int


_OPEN = _Extent(-1, -1)  # of a node whose parts are being counted


def load(text: str | bytes) -> Any:
    """The plain data that a text describes."""
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except NotYaml:
        raise
    except RecursionError:
        raise NotYaml(_TOO_DEEP) from None
    except Exception as error:  # a value may be no number or date, whatever its tag says
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NotYaml(reason[:_LONGEST]) from None


_TOO_DEEP = f"mappings and lists are nested more than {DEEPEST} deep"


def _measure(node: Any, known: dict[int, _Extent]) -> _Extent:
    """Height and values of a node; NotYaml where there are too many."""
    import yaml

    if extent := known.get(id(node)):
        if extent is _OPEN:
            raise NotYaml("an alias stands inside what it names")
        return extent
    known[id(node)] = _OPEN
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    else:
        parts = node.value if isinstance(node, yaml.SequenceNode) else []
    extents = [_measure(part, known) for part in parts]
    extent = _Extent(
        1 + max((part.height for part in extents), default=0),
        1 + sum(part.values for part in extents),
    )
    if extent.height > DEEPEST:
        raise NotYaml(_TOO_DEEP)
    if extent.values > MOST_VALUES:
        raise NotYaml(f"it holds more than {MOST_VALUES:,} values")
    known[id(node)] = extent
    return extent
