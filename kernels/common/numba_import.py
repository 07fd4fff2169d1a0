"""`import_numba`, which works even if the program has replaced `print`.

DINO, MAE and many others replace `builtins.print`, so that only one rank prints. On import, Numba
looks up each function that it knows by its module and name. Such a `print` cannot be found there,
and the import fails. So a `print` that can be found stands in during the import.
"""

import builtins
import importlib
import sys
from types import BuiltinFunctionType
from typing import Any


def import_numba() -> None:
    """Import Numba if it has not been imported yet."""
    replaced = builtins.print

    def print(*values: Any, **options: Any) -> None:
        replaced(*values, **options)

    print.__module__ = builtins.__name__
    if "numba" not in sys.modules and not isinstance(replaced, BuiltinFunctionType):
        builtins.print = print
    try:
        importlib.import_module("numba")
    finally:
        builtins.print = replaced
