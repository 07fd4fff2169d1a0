"""Untrusted YAML as plain data: mappings, lists and scalars, of bounded depth and size.

Aliases can expand a few bytes to many values: a list of ten lists, each ten times the one before,
is a billion values after nine lines. Values are therefore counted before they are constructed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

DEEPEST = 64  # nested mappings and lists
MOST_VALUES = 100_000  # with all aliases expanded
_LONGEST = 300  # characters of a reason


class NotYaml(ValueError):
    """The text is not plain YAML data; the message says why, on one line."""


class _Extent(NamedTuple):
    """Height of a node and the number of values in it, with aliases expanded."""

    height: int
    values: int


_OPEN = _Extent(-1, -1)  # for a node whose parts are being counted


def load(text: str | bytes) -> Any:
    """Parse a text to plain data; NotYaml if that fails."""
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
    except Exception as error:  # a value may not be the number or date that its tag claims
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NotYaml(reason[:_LONGEST]) from None


_TOO_DEEP = f"mappings and lists are nested more than {DEEPEST} deep"


def _measure(node: Any, known: dict[int, _Extent]) -> _Extent:
    """Height of a node and number of its values; NotYaml if either is too large."""
    import yaml

    if extent := known.get(id(node)):
        if extent is _OPEN:
            raise NotYaml("an alias refers to a node that contains it")
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
