"""Arguments key=value of `train`, `evaluate` and `export`: keys, and the values of a key."""

from __future__ import annotations

import ast
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from patchmill.command.completion.runs import folders
from patchmill.command.completion.word import Word, plain
from patchmill.loaders.common.settings import field_annotations, union_members

RECIPES = ("method.views", "evaluate.view", "views")


def training(before: Sequence[str], typed: str) -> list[Word]:
    from patchmill.training.config import overrides
    from patchmill.training.config.settings import Config

    chosen = _chosen(before)
    key, equals, _ = typed.partition("=")
    if equals and key in overrides.GROUPS:
        choices = overrides.choices(key)
        return [Word(f"{key}={choice}", title) for choice, title in choices.items()]
    annotations = overrides.keys(Config)
    for name in ("method", "method_name", "scale"):
        annotations.pop(name, None)
    fields = method_fields(chosen.get("method", ""))
    annotations |= {f"method.{name}": Any for name in fields}
    return _keys_or_values([*overrides.GROUPS, *annotations], annotations, before, typed)


def evaluation(before: Sequence[str], typed: str) -> list[Word]:
    from patchmill.training import evaluate
    from patchmill.training.config import overrides
    from patchmill.training.config.settings import Config
    from patchmill.training.evaluation.registry import EVALUATIONS

    if typed.startswith("evaluate="):
        return [Word(f"evaluate={name}", each.title) for name, each in EVALUATIONS.items()]
    chosen = EVALUATIONS.get(_chosen(before).get("evaluate", "knn"), EVALUATIONS["knn"])
    of_run = overrides.keys(Config)
    annotations = {
        **field_annotations(evaluate.Command),
        **field_annotations(chosen.settings),
        **{key: of_run[key] for key in evaluate.OVERRIDABLE},
    }
    return _keys_or_values(annotations, annotations, before, typed)


def export(before: Sequence[str], typed: str) -> list[Word]:
    from patchmill.training import export
    from patchmill.training.exports.registry import LIBRARIES

    if typed.startswith("to="):
        return [Word(f"to={name}", library.title) for name, library in LIBRARIES.items()]
    annotations = field_annotations(export.Command)
    return _keys_or_values(annotations, annotations, before, typed)


def bug_report(before: Sequence[str], typed: str) -> list[Word]:
    return _keys_or_values(["run"], {"run": str}, before, typed)


KEYS_OF: dict[str, Callable[[Sequence[str], str], list[Word]]] = {
    "train": training,
    "evaluate": evaluation,
    "export": export,
}


def presets(prefix: str = "") -> list[Word]:
    from patchmill.loaders.presets import ALL

    return [
        Word(prefix + name, (preset.__doc__ or "").partition("\n")[0])
        for name, preset in ALL.items()
    ]


def method_fields(method: str) -> list[str]:
    """Names of a method's own settings, from its source: importing it would import torch."""
    from patchmill import training

    return _fields(Path(training.__path__[0], "methods"), method)


# -------------------------------------------------------------------------------------------- parts


def _chosen(before: Sequence[str]) -> dict[str, str]:
    return {key: text for key, _, text in (word.partition("=") for word in before)}


def _keys_or_values(
    keys: Iterable[str], annotations: Mapping[str, Any], before: Sequence[str], typed: str
) -> list[Word]:
    key, equals, text = typed.partition("=")
    if not equals:
        return _keys([name for name in keys if name not in _chosen(before)], typed)
    if key == "run":
        return folders(text, "run=")
    if key in RECIPES:
        return presets(f"{key}=")
    if key == "checkpoint":
        return plain("checkpoint=newest", "checkpoint=best")
    return [Word(f"{key}={value}") for value in _values(annotations.get(key, Any))]


def _keys(keys: Iterable[str], typed: str) -> list[Word]:
    """Keys with =; for keys in a section that is not typed yet, only the section."""
    found: dict[str, None] = {}
    for key in keys:
        section, dot, _ = key.partition(".")
        whole = not dot or typed.startswith(f"{section}.")
        found[f"{key}=" if whole else f"{section}."] = None
    return plain(*found)


def _values(annotation: Any) -> list[str]:
    """Values that can be listed for a setting: those of a Literal, true, false, none."""
    found: list[str] = []
    for kind in union_members(annotation):
        if typing.get_origin(kind) is Literal:
            found += typing.get_args(kind)
        elif kind is bool:
            found += ("true", "false")
        elif kind is types.NoneType:
            found.append("none")
    return found


def _fields(folder: Path, method: str) -> list[str]:
    """Fields of the class whose name ends in Settings, and of its base class in another module."""
    try:
        tree = ast.parse((folder / f"{method}.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return []
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings"):
            for base in node.bases:
                if isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name):
                    names += _fields(folder, base.value.id)
            names += [
                each.target.id
                for each in node.body
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
            ]
    return list(dict.fromkeys(names))
