"""Methods from outside this package: `method=margin:Margin` is class Margin of module margin.

The module is imported as by `python -m`: from the current folder or from Python's path. Its
optional recipe is `margin.yaml` next to it, and the changes at a scale are in `margin-demo.yaml`:
files like those in method/ and tuned/.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmill.loaders.common import own_code, plain_yaml
from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.training.methods import Method


def is_own(name: str) -> bool:
    return ":" in name


def short_name(name: str) -> str:
    """`package.margin:Margin` -> `margin`: the name of its recipe and of its runs."""
    return name.partition(":")[0].rpartition(".")[2]


def load(name: str) -> type[Method]:
    """The class that `module:Class` names."""
    from patchmill.training.methods.method import Method

    cls = own_code.load(name, f"method={name}")
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise MillError(f"method={name} must be a subclass of patchmill.training.methods.Method")
    if not hasattr(cls, "Settings"):
        raise MillError(f"method={name} needs a dataclass Settings with a field views")
    return cls


def recipes(name: str, scales: list[str]) -> dict[str, Any]:
    """`margin` and `margin-SCALE` -> the settings in the YAML files next to the module, if any."""
    origin, stem = own_code.find_module(name, f"method={name}"), short_name(name)
    parts = (stem, *(f"{stem}-{scale}" for scale in scales))
    found = {part: _read(origin.with_name(f"{part}.yaml")) for part in parts}
    found[stem] |= {"method_name": name}
    return found


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = plain_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, plain_yaml.NotYaml) as error:
        raise MillError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise MillError(f"{path} must hold settings, such as 'train: {{epochs: 10}}'")
    return content
