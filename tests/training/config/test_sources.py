"""Composed settings of every method at every scale, against the sources they are from."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import helpers_sources
import helpers_sources_byol
import helpers_sources_dino
import helpers_sources_lejepa
import helpers_sources_selfie
import pytest
from helpers_sources import OURS, RECALLED

from patchmill.loaders.recipe import Views
from patchmill.training.config import compose, overrides
from patchmill.training.config.recipes import training_recipe
from patchmill.training.config.settings import Config
from patchmill.training.methods import METHODS

SETTINGS = (
    helpers_sources.SETTINGS
    | helpers_sources_byol.SETTINGS
    | helpers_sources_lejepa.SETTINGS
    | helpers_sources_dino.SETTINGS
    | helpers_sources_selfie.SETTINGS
)

# Sections, and the settings in them that a source could name; () is all of them.
COMPARED: dict[str, tuple[str, ...]] = {
    "method": (),
    "model": (),
    "optim": (),
    "train": ("epochs", "batch_size", "accumulate", "sync_bn"),
    "evaluate": ("k", "temperature", "space", "encoder", "view"),
}


def composed(method: str, scale: str) -> Config:
    size = [] if scale == "paper" else ["size=32"]
    return compose.compose([f"method={method}", f"scale={scale}", *size])


def settings(config: Config) -> dict[str, Any]:
    """Flat settings, and where batch norms begin with zeros.

    Fields of a recipe's only view group are `views.size` and so on; of several groups,
    `global.size` and `local.size`.
    """
    plain = compose.plain(config)
    flat = {
        f"{section}.{name}": value
        for section, names in COMPARED.items()
        for name, value in plain[section].items()
        if name != "views" and (not names or name in names)
    }
    groups = training_recipe(config).views
    for group in groups:
        flat |= _fields(group, "views" if len(groups) == 1 else group.name)
    return flat | {"zero_init": METHODS[config.method_name].zero_init(config.method)}


def defaults(config: Config) -> dict[str, Any]:
    """Settings of a method of which no YAML file says anything."""
    plain = Config(method_name=config.method_name, method=METHODS[config.method_name].Settings())
    flat = settings(plain) | {"zero_init": False}
    for name in ("views", "global", "local", "patches"):
        flat |= _fields(Views(name, 1, 1), name)
    return flat


def _fields(views: Views, prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}.{field.name}": getattr(views, field.name)
        for field in fields(views)
        if field.name != "name"
    }


def test_every_method_is_listed_at_every_scale():
    pairs = {(m, s) for m in overrides.choices("method") for s in overrides.choices("scale")}
    assert set(SETTINGS) == pairs


@pytest.mark.parametrize(("method", "scale"), SETTINGS)
def test_settings_are_those_of_their_sources(method: str, scale: str):
    config, sources = composed(method, scale), SETTINGS[method, scale]
    found, plain = settings(config), defaults(config)
    wrong = [
        f"{name} is {found[name]!r} and not {value!r}, which is from {source}"
        for source, rows in sources.items()
        if source != RECALLED
        for name, value in rows.items()
        if found[name] != value
    ]
    assert not wrong, "\n".join(wrong)
    unnamed = {name for name in found if found[name] != plain[name]} - {
        name for rows in sources.values() for name in rows
    }
    assert not unnamed, f"no source says anything of {', '.join(sorted(unnamed))}"


@pytest.mark.parametrize(("method", "scale"), SETTINGS)
def test_a_setting_has_one_source(method: str, scale: str):
    names = [name for rows in SETTINGS[method, scale].values() for name in rows]
    assert len(names) == len(set(names))
    assert scale != "demo" or OURS in SETTINGS[method, scale]
