"""What evaluations wrote as JSON, as tables and curves: whatever they hold, by its shape.

Scalars are figures or conditions, a list of records or a record of records is a table, and lists
of numbers side by side are a curve over the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patchmill.training.report.curves import Line, Look, Point, chart
from patchmill.training.report.markup import NOTHING, table, tag, text

SHARES = ("knn", "linear", "accuracy", "untrained", "trained", "last", "best", "top")
SILENT = ("step", "epoch", "recipes", "neighbours")
TITLES = {
    "columns": "Accuracy by the mean over patches",
    "curve": "How near the means of fewer patches come",
    "probes": "Linear probes",
    "scores": "Accuracy, as backgrounds change",
    "gaps": "What is lost",
}


def shown(heading: str, found: Any) -> list[str]:
    """The pieces that one file makes, to stand side by side."""
    if not isinstance(found, dict):
        return [_nested(heading, found) if isinstance(found, list) else tag("p", text(found))]
    figures, conditions, pieces = [], [], []
    for key, value in found.items():
        if key in SILENT or value is None:
            continue
        if is_share(key, value):
            figures.append([words(key), said(key, value)])
        elif isinstance(value, dict | list) and not _is_words(value):
            pieces.append(_nested(TITLES.get(key, title(key)), value))
        else:
            conditions.append(f"{words(key)}: {_listed(key, value)}")
    if figures:
        pieces.insert(0, table(heading, ["", "accuracy"], figures))
    if conditions and pieces:
        pieces[0] = tag("div", pieces[0], _note(conditions))
    elif conditions:
        pieces = [_note(conditions)]
    return pieces


def _note(conditions: list[str]) -> str:
    return tag("p", text(" · ".join(conditions)), class_="note")


def _is_words(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(it, str) for it in found.values())


def _listed(name: str, found: Any) -> str:
    if isinstance(found, dict):
        return ", ".join(f"{words(key)} {value}" for key, value in found.items())
    return said(name, found)


def _nested(title: str, found: Any) -> str:
    if isinstance(found, list):
        if found and all(isinstance(it, dict) for it in found):
            return _records(title, [("", dict(_flat(it))) for it in found])
        return table("", [title], [[said(title, it)] for it in found])
    if _is_curve(found):
        return curve(title, found)
    if found and all(isinstance(value, dict) for value in found.values()):
        return _records(title, [(key, dict(_flat(it))) for key, it in found.items()])
    return table(title, ["", "value"], [[words(key), said(key, it)] for key, it in _flat(found)])


def _records(title: str, rows: list[tuple[str, dict[str, Any]]]) -> str:
    """Each with its name, unless it has none; a column for each key that any of them has."""
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    named = any(name for name, _ in rows)
    body = [
        [
            *([words(name)] if named else []),
            *(said(f"{name} {key}", row.get(key)) for key in keys),
        ]
        for name, row in rows
    ]
    return table(title, [*([""] if named else []), *map(words, keys)], body)


def _flat(found: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """`{"h": {"knn": 0.5}}` as `"h knn": 0.5`."""
    for key, value in found.items():
        name = f"{before} {key}".strip()
        if isinstance(value, dict):
            yield from _flat(value, name)
        else:
            yield name, value


def curve(title: str, found: dict[str, list[float]]) -> str:
    over, *names = found
    lines = [Line(words(name), list(map(Point, found[over], found[name]))) for name in names]
    doubling = min(found[over]) > 0
    form = "{:.3f}".format
    return chart(Look(title, over, "cosine", doubling=doubling, form=form), lines)


def _is_curve(found: dict[str, Any]) -> bool:
    """Two lists of numbers or more, of one length."""
    lists = [value for value in found.values() if isinstance(value, list) and value]
    numbers = all(isinstance(it, int | float) for values in lists for it in values)
    return (
        len(lists) > 1 and len(lists) == len(found) and numbers and len(set(map(len, lists))) == 1
    )


# ------------------------------------------------------------------------------------ what is said


def words(name: object) -> str:
    return {"lr": "learning rate"}.get(str(name), str(name).replace("_", " ").replace("knn", "kNN"))


def title(name: object) -> str:
    told = words(name)
    return told if told.startswith("kNN") else told[:1].upper() + told[1:]


def is_share(name: str, value: object) -> bool:
    parts = str(name).lower().replace("_", " ").split()
    known = any(part.startswith(SHARES) for part in parts)
    return isinstance(value, float) and -1 <= value <= 1 and known


def said(name: str, value: object) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.1%}" if is_share(name, value) else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(said(name, it) for it in value) or NOTHING
    return str(value)
