"""Methods from outside this package: `method=margin:Margin` is class Margin of module margin.

The module is imported as `python -m` would import it: from the current folder or any other place on
Python's path. Its recipe, which may be missing, is `margin.yaml` beside it, and the changes at a
scale `margin-demo.yaml`: files like those in method/ and tuned/.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.training.methods import Method


def is_own(name: str) -> bool:
    return ":" in name


def short_name(name: str) -> str:
    """`package.margin:Margin` -> `margin`: the name of its recipe, and of runs."""
    return name.partition(":")[0].rpartition(".")[2]


def load(name: str) -> type[Method]:
    """The class that `module:Class` names."""
    from patchmill.training.methods.method import Method

    module_name, _, class_name = name.partition(":")
    _find(name)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise MillError(f"method={name} cannot be imported: {reason}") from error
    cls = getattr(module, class_name, None)
    if cls is None:
        classes = {key: value for key, value in vars(module).items() if _is_method(value, Method)}
        raise MillError(f"method={name}: {module_name} has no {class_name!r}{_hint(classes)}")
    if not _is_method(cls, Method):
        raise MillError(
            f"method={name}: {class_name} must be a subclass of patchmill.training.methods.Method"
        )
    if not hasattr(cls, "Settings"):
        raise MillError(
            f"method={name}: {class_name} needs a dataclass Settings with a field views"
        )
    return cls


def recipes(name: str, scales: list[str]) -> dict[str, Any]:
    """`margin` and `margin-SCALE` -> the settings in the YAML files beside the module, if any."""
    origin, stem = _find(name), short_name(name)
    parts = (stem, *(f"{stem}-{scale}" for scale in scales))
    found = {part: _read(origin.with_name(f"{part}.yaml")) for part in parts}
    found[stem] |= {"method_name": name}
    return found


def _find(name: str) -> Path:
    """The file of the method's module; the current folder is on the path from here on."""
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise MillError(
            f"cannot read method={name}: write module:Class, as in method=margin:Margin for the "
            "class Margin of margin.py"
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        spec = importlib.util.find_spec(module_name)
    except ImportError:  # of a package that it is in
        spec = None
    if spec is None or not spec.origin:
        raise MillError(
            f"method={name}: there is no module {module_name} in {os.getcwd()} or on Python's "
            "path; start from its folder, or set PYTHONPATH"
        )
    return Path(spec.origin)


def _is_method(value: Any, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base) and value is not base


def _hint(classes: dict[str, type]) -> str:
    return nearest("", classes) if classes else "; it has no methods"


def _read(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MillError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise MillError(f"{path} must hold settings, such as 'train: {{epochs: 10}}'")
    return content
