"""Render the JSON of evaluations as tables and curves, based only on its structure.

Scalars are metrics or conditions, a list or dict of records is a table, and a dict of number lists
of equal length is a curve over the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patchmill.training.report.curves import ChartStyle, Line, Point, chart
from patchmill.training.report.markup import NOTHING, table, tag, text

ACCURACIES = ("knn", "linear", "accuracy", "untrained", "trained", "last", "best", "top")
HIDDEN = ("step", "epoch", "recipes", "protocols", "neighbours", "per_class", "picture", "loss")
TITLES = {
    "columns": "Accuracy by the mean over patches",
    "curve": "Convergence of the mean over patches",
    "untrained_curve": "Convergence of the untrained network's",
    "locality": "Where the nearest patches are from",
    "probes": "Linear probes",
    "scores": "Accuracy, as backgrounds change",
    "gaps": "Accuracy lost",
    "finetuned": "Fine-tuning",
    "figures": "Accuracies, rank and spread",
    "networks": "Average precision",
    "backbones": "Pixels, and means over classes",
}


def render(heading: str, result: Any) -> list[str]:
    """Build the pieces of markup for one file, to be placed side by side."""
    if not isinstance(result, dict):
        return [_nested(heading, result) if isinstance(result, list) else tag("p", text(result))]
    figures, conditions, pieces = [], [], []
    for key, value in result.items():
        if key in HIDDEN or value is None:
            continue
        if is_accuracy(key, value):
            figures.append([label(key), format_value(key, value)])
        elif isinstance(value, dict | list) and not _is_all_text(value):
            pieces.append(_nested(TITLES.get(key, title(key)), value))
        else:
            conditions.append(f"{label(key)}: {_condition(key, value)}")
    if figures:
        pieces.insert(0, table(heading, ["", "accuracy"], figures))
    if conditions and pieces:
        pieces[0] = tag("div", pieces[0], _note(conditions))
    elif conditions:
        pieces = [_note(conditions)]
    return pieces


def _note(conditions: list[str]) -> str:
    return tag("p", text(" · ".join(conditions)), class_="note")


def _is_all_text(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _condition(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{label(key)} {item}" for key, item in value.items())
    return format_value(name, value)


def _nested(title: str, value: Any) -> str:
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):
            return _records(title, [("", dict(_flatten(item))) for item in value])
        return table("", [title], [[format_value(title, item)] for item in value])
    if _is_curve(value):
        return curve(title, value)
    if value and all(isinstance(item, dict) for item in value.values()):
        return _records(title, [(key, dict(_flatten(item))) for key, item in value.items()])
    rows = [[label(key), format_value(key, item)] for key, item in _flatten(value)]
    return table(title, ["", "value"], rows)


def _records(title: str, rows: list[tuple[str, dict[str, Any]]]) -> str:
    """Build a table of named or unnamed records, with a column for each key of any record."""
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    named = any(name for name, _ in rows)
    body = [
        [
            *([label(name)] if named else []),
            *(format_value(f"{name} {key}", row.get(key)) for key in keys),
        ]
        for name, row in rows
    ]
    return table(title, [*([""] if named else []), *map(label, keys)], body)


def _flatten(nested: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten `{"h": {"knn": 0.5}}` to `"h knn", 0.5`."""
    for key, value in nested.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, dict):
            yield from _flatten(value, name)
        else:
            yield name, value


def curve(title: str, columns: dict[str, list[float]]) -> str:
    x, *names = columns
    lines = [Line(label(name), list(map(Point, columns[x], columns[name]))) for name in names]
    doubling = min(columns[x]) > 0
    form = "{:.3f}".format
    return chart(ChartStyle(title, x, "cosine", doubling=doubling, form=form), lines)


def _is_curve(value: dict[str, Any]) -> bool:
    """True for at least two number lists of equal length."""
    lists = [column for column in value.values() if isinstance(column, list) and column]
    numbers = all(isinstance(item, int | float) for column in lists for item in column)
    return (
        len(lists) > 1 and len(lists) == len(value) and numbers and len(set(map(len, lists))) == 1
    )


# ---------------------------------------------------------------------------------- labels, values


def label(name: object) -> str:
    text = str(name).replace("_", " ").replace("knn", "kNN").replace("rankme", "RankMe")
    return {"lr": "learning rate"}.get(text, text)


def title(name: object) -> str:
    text = label(name)
    return text if text.startswith("kNN") else text[:1].upper() + text[1:]


def is_accuracy(name: str, value: object) -> bool:
    """True for a fraction that is an accuracy by its name."""
    parts = str(name).lower().replace("_", " ").split()
    return (
        isinstance(value, float)
        and -1 <= value <= 1
        and any(part.startswith(ACCURACIES) for part in parts)
    )


def format_value(name: str, value: object) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.1%}" if is_accuracy(name, value) else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(format_value(name, item) for item in value) or NOTHING
    return str(value)
