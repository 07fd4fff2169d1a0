"""Import the user's own classes, named as `module:Name`, as `python -m` would import them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError


def find_module(name: str, setting: str) -> Path:
    """Find the file of the module in `module:Name`, adding the current folder to the path.

    `setting` is the user's text, for messages.
    """
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise MillError(
            f"cannot read {setting}: write module:Name, as in margin:Margin for the class Margin "
            "of margin.py"
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        spec = importlib.util.find_spec(module_name)
    except ImportError:  # of a parent package
        spec = None
    if spec is None or not spec.origin:
        raise MillError(
            f"{setting}: there is no module {module_name} in {os.getcwd()} or on Python's path; "
            "run the command in its folder, or set PYTHONPATH"
        )
    return Path(spec.origin)


def load(name: str, setting: str) -> Any:
    """Import the class or function named by `module:Name`."""
    find_module(name, setting)
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise MillError(f"{setting} cannot be imported: {reason}") from error
    if not hasattr(module, class_name):
        raise MillError(f"{setting}: the module {module_name} has no {class_name!r}")
    return getattr(module, class_name)
