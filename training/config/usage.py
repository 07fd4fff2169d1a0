"""Help text of `patchmill train`, from the YAML files, settings classes and their comments."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

from patchmill.loaders.common import settings as typed
from patchmill.training.config import compose, overrides
from patchmill.training.config.settings import Config

HEAD = """\
usage: patchmill train method=METHOD [data=DATA] [scale=SCALE] [key=value ...] [options]

Train, evaluate every epoch, and write a report; the same command again resumes the run.
On several GPUs: torchrun --nproc-per-node 8 -m patchmill train ...

  patchmill train method=dilo data=scenes
  patchmill train method=moco data=imagenet data.root=/data/imagenet
  patchmill train method=emp_ssl data=cifar10 data.root=/data/cifar10 train.epochs=10
  patchmill train method=margin:Margin data=scenes        class Margin of your own margin.py

options:
  -h, --help  show this help message and exit; with a method, its recipe's defaults
  --show      print the settings of the run as YAML, with its expected hours, and do not train
"""

_TITLES = {
    "method": "the method, with its paper's recipe",
    "data": "the data set (default: scenes)",
    "scale": "presets (default: the data set's own, else paper)",
    "model": "the backbone, instead of the recipe's",
    "optim": "the optimiser, instead of the recipe's",
    "evaluate": "kNN evaluation during training",
}


def text(arguments: Sequence[str]) -> str:
    """The help text, with the defaults of the recipe that `arguments` choose."""
    config = compose.compose(arguments) if arguments else Config()
    return "\n".join([HEAD, *_groups(), *_settings(config)])


def _groups() -> Iterator[str]:
    for group in sorted(overrides.GROUPS, key=list(_TITLES).index):
        yield f"{group}=  {_TITLES[group]}"
        for name, title in overrides.choices(group).items():
            yield f"  {name:<14} {title}"
        yield ""


def _settings(config: Config) -> Iterator[str]:
    yield "settings, with their defaults; written key=value, where the value may be a list, as"
    yield "[0.9,0.95], or none"
    yield ""
    for key, kind, value, about in _rows(config, ""):
        yield f"  {key:<26} {format_value(value):<11} {about} ({kind})"
    if config.method is None:
        yield "  method.*                    the method's own: see --help with method=..."


def _rows(config: Any, prefix: str) -> Iterator[tuple[str, str, Any, str]]:
    """Key, type, value and comment of each setting, nested ones included."""
    cls: type = type(config)
    about = comments(cls)
    for name, kind in typed.field_annotations(cls).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from _rows(value, f"{prefix}{name}.")
        elif kind is not Any and name not in ("method_name", "scale"):
            yield prefix + name, typed.describe_type(kind), value, about[name]


def comments(cls: type) -> dict[str, str]:
    """Field -> its comment in the source, for a dataclass and its bases."""
    about = dict.fromkeys(typed.field_annotations(cls), "")
    for base in reversed([base for base in cls.__mro__ if dataclasses.is_dataclass(base)]):
        for line in inspect.getsource(base).splitlines():
            if match := re.match(r"    (\w+): .*  # (.+)", line):
                about[match[1]] = match[2]
    return about


def format_value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{','.join(map(format_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value) or "''"
