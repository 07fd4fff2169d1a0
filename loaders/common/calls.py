"""Parse calls such as `name(key=value, ...)` from a command line, without evaluating them."""

from __future__ import annotations

import ast
import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """`"dino(local_crops=6)"` -> `("dino", {"local_crops": 6})`; a bare name has no arguments."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own, about unusual code
            node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)) or node.args:
            raise ValueError
        if any(k.arg is None for k in node.keywords):
            raise ValueError
        return node.func.id, {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise MillError(
            f"cannot read {brief(text)}: write a name, or a name with literal keyword arguments "
            "such as dino(local_crops=6)"
        ) from None


def text(name: str, arguments: Mapping[str, Any]) -> str:
    """Inverse of `parse`."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def call(text: str, choices: Mapping[str, Callable[..., Any]], kind: str) -> Any:
    """Parse `text` and call the named choice; MillErrors suggest the nearest name or setting."""
    name, arguments = parse(text)
    if name not in choices:
        raise MillError(f"there is no {kind} {brief(name)}{nearest(name, choices)}")
    parameters = inspect.signature(choices[name]).parameters
    for key in arguments:
        if key not in parameters:
            raise MillError(f"{kind} {name} has no setting {brief(key)}{nearest(key, parameters)}")
    try:
        return choices[name](**arguments)
    except TypeError as error:
        raise MillError(f"{kind} {brief(text)} cannot be made: {error}") from None


def nearest(word: str, choices: Mapping[str, Any]) -> str:
    """Suffix for an error message: `; did you mean 'X'?`, or the list of choices."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(choices)}" if choices else "; it has no settings"
