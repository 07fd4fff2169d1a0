"""`import_numba`, whatever the program has put in the place of `print`.

DINO, MAE and many others replace `builtins.print`, so that only one rank prints. On its import,
Numba looks up each function that it knows under that function's module and name, where such a
`print` is not: it fails. So meanwhile one that is there stands in.
"""

import builtins
import importlib
import sys
from types import BuiltinFunctionType
from typing import Any


def import_numba() -> None:
    """Import Numba, unless that was done before."""
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
