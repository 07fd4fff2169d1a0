"""Compose `method=dilo data=scenes optim.lr=0.1` into a checked Config; save and load it as YAML.

Hydra merges the YAML files of config/ in the order given by config.yaml. Types and ranges, defined
in settings.py and in each method's Settings, are checked here once, on the result.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchmill.loaders.common import plain_yaml
from patchmill.loaders.common import settings as typed
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief
from patchmill.loaders.files.writing import reason, write_atomic
from patchmill.training import data_paths
from patchmill.training.config import overrides, own_method, rules
from patchmill.training.config.changes import Difference, difference
from patchmill.training.config.settings import Config

__all__ = [
    "FILE",
    "Difference",
    "compose",
    "difference",
    "from_plain",
    "load",
    "plain",
    "save",
    "to_yaml",
]

FILE = "config.yaml"


def compose(arguments: Sequence[str]) -> Config:
    """The configuration from command-line overrides, which win over every YAML file."""
    choices, settings = overrides.split(arguments)
    if "method" not in choices:
        names = ", ".join(overrides.choices("method"))
        raise MillError(f"say what to train, as in method=dilo data=scenes; there are: {names}")
    config = from_plain(_resolve(choices, settings))
    method = own_method.short_name(choices["method"])
    config.name = config.name or f"{method}-{config.data.name}-{config.scale}"
    rules.check(config)
    return config


def save(config: Config, folder: Path) -> None:
    """Write the resolved settings to config.yaml in `folder`."""
    path = Path(folder) / FILE
    try:
        write_atomic(path, to_yaml(config), durable=True)
    except OSError as error:
        raise MillError(
            f"cannot write {path}: {reason(error)}; free some space or fix the cause, then "
            "run the same command again"
        ) from None


def to_yaml(config: Config) -> str:
    import yaml

    return yaml.safe_dump(plain(config), sort_keys=False, default_flow_style=None, width=100)


def load(folder: Path) -> Config:
    """Load the configuration of the run in `folder`."""
    path = Path(folder) / FILE
    try:
        data = plain_yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MillError(
            f"cannot read {path}: {error.strerror}; is {folder} the folder of a run?"
        ) from None
    except (plain_yaml.NotYaml, UnicodeDecodeError) as error:
        raise MillError(f"{path} is not valid YAML: {error}") from None
    return from_plain(data)


def plain(config: Config) -> dict[str, Any]:
    """The configuration as dicts, lists and scalars, for checkpoints and YAML."""
    return typed.to_plain(config)


def from_plain(data: Any) -> Config:
    """Inverse of `plain`; checks every value."""
    if not isinstance(data, Mapping):
        raise MillError(f"this is not the configuration of a run: {brief(data)}")
    config: Config = typed.from_plain(Config, data)
    config.method = typed.from_plain(_settings_of(config.method_name), config.method, "method.")
    return config


# ------------------------------------------------------------------------------------------- Hydra


def _resolve(choices: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, Any]:
    """All settings as plain data, with interpolations and data paths resolved."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    tree = _hydra_compose([f"{group}={choice}" for group, choice in choices.items()])
    annotations = overrides.keys(Config)
    del annotations["method"], annotations["method_name"]  # chosen by method=
    annotations |= overrides.keys(_settings_of(tree.method_name), "method.")
    for key, text in settings.items():
        value = overrides.value(key, text, overrides.annotation(key, annotations))
        OmegaConf.update(tree, key, value, force_add=True)
    try:
        plain: Any = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        raise MillError(f"cannot fill in {error.full_key}: {str(error).splitlines()[0]}") from None
    plain["data"] = data_paths.resolve(
        plain["data"], {key for key in settings if key in annotations}
    )
    return plain


def _hydra_compose(choices: list[str]) -> Any:
    """The config tree for these choices, which the caller may modify."""
    recipes = [_own_recipe(choice) for choice in choices]
    if recipes != choices:
        return _merged(*recipes)  # a user's own files may have changed
    return copy.deepcopy(_merged_once(*choices))


def _merged(*choices: str) -> Any:
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    schema = {**plain(Config()), "method": {}}
    ConfigStore.instance().store(name="schema", node=schema, provider="patchmill")
    OmegaConf.register_new_resolver("resized", _resized, replace=True)
    OmegaConf.register_new_resolver("at_least", max, replace=True)
    OmegaConf.register_new_resolver("local", _local, replace=True)
    try:
        with hydra.initialize_config_dir(str(overrides.FOLDER), version_base="1.3"):
            return hydra.compose("config", [*choices])
    except HydraException as error:  # in a user's own recipe: ours are tested
        raise MillError(f"cannot compose the recipe: {str(error).splitlines()[0]}") from None


_merged_once = functools.lru_cache(maxsize=64)(_merged)  # Hydra takes 0.1 s


def _own_recipe(choice: str) -> str:
    """`method=NAME` for a user's own method, whose recipe Hydra then finds by that name."""
    from hydra.core.config_store import ConfigStore

    group, _, name = choice.partition("=")
    if group != "method" or not own_method.is_own(name):
        return choice
    stem, scales = own_method.short_name(name), list(overrides.choices("scale"))
    found = own_method.recipes(name, scales)
    for part, node in found.items():
        group = "method" if part == stem else "tuned"
        ConfigStore.instance().store(f"own_{part}", node, group, "_global_", provider="own")
    return f"method=own_{stem}"


def _resized(size: int) -> int:
    """Short side to which photos are resized before the centre crop: 256 for 224."""
    return round(size * 8 / 7)


def _local(size: int) -> int:
    """Side of local crops for global crops of `size`: 96 for 224; a multiple of 16."""
    return max(round(size * 96 / 224 / 16), 1) * 16


def _settings_of(method_name: str) -> type:
    from patchmill.training.methods import find

    return find(str(method_name)).Settings
