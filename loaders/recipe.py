"""`Recipe`: the views to make of every image, as frozen, hashable data with a YAML form.

A recipe is a list of view groups (`Views`), whose settings are in `recipe_parts` and re-exported
here. `recipe_load` makes a recipe from a preset's name, a call or a YAML file.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from patchmill.loaders.common import plain_yaml, settings
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe_parts import (
    BACKGROUNDS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Blur,
    Centre,
    Chance,
    Colour,
    CopyPaste,
    Crop,
    Grid,
    Law,
    Range,
    Shift,
    Spread,
    Views,
    Window,
    chance_of,
)
from patchmill.loaders.recipe_rules import check_views

__all__ = [
    "BACKGROUNDS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "LAWS_VERSION",
    "Blur",
    "Centre",
    "Chance",
    "Colour",
    "CopyPaste",
    "Crop",
    "Grid",
    "Law",
    "Range",
    "Recipe",
    "Shift",
    "Spread",
    "Views",
    "Window",
    "chance_of",
]

# Incremented whenever a change alters what a (recipe, seed, epoch, id) draws or how it is rendered.
LAWS_VERSION = 5


@dataclass(frozen=True)
class Recipe:
    """All view groups of one training recipe, in the order of a batch."""

    views: tuple[Views, ...]
    name: str = field(default="custom", compare=False)
    provenance: str = field(default="", compare=False)  # where the numbers come from

    def __post_init__(self) -> None:
        for name, value in settings.checked_fields(self).items():
            object.__setattr__(self, name, value)
        check_views(self.views)

    @property
    def total(self) -> int:
        return sum(group.total for group in self.views)

    @property
    def pixels(self) -> int:
        """Output pixels per image."""
        return sum(group.total * group.size**2 for group in self.views)

    @property
    def pastes_images(self) -> bool:
        """True if a view may be pasted on another image."""
        return any(group.paste and group.paste.background == "images" for group in self.views)

    def group(self, name: str) -> Views:
        for group in self.views:
            if group.name == name:
                return group
        raise MillError(f"the recipe {self.name} has no view group {name!r}")

    def fingerprint(self) -> str:
        """Hash, equal for recipes that make equal views; part of loader states and checkpoints."""
        return _fingerprint(self)

    def to_dict(self) -> dict[str, Any]:
        return settings.to_plain(self)

    def to_yaml(self) -> str:
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=100)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Recipe:
        return settings.from_plain(Recipe, data, "the recipe: ")

    @staticmethod
    def from_yaml(text: str) -> Recipe:
        try:
            data = plain_yaml.load(text)
        except plain_yaml.NotYaml as error:
            raise MillError(f"the recipe is not valid YAML: {error}") from None
        return Recipe.from_dict(data)

    def __str__(self) -> str:
        groups = ", ".join(f"{v.total} x {v.size}px {v.name}" for v in self.views)
        return f"{self.name}: {groups}"


# Fingerprints are stored in checkpoints, so they must not change: a setting added later counts only
# if it is used, and a renamed one keeps its old name.
_ADDED_LATER: list[tuple[str, Any]] = [("paste", None), ("extra", [])]


@functools.lru_cache(maxsize=256)
def _fingerprint(recipe: Recipe) -> str:
    groups = [
        {name: value for name, value in group.items() if (name, value) not in _ADDED_LATER}
        for group in recipe.to_dict()["views"]
    ]
    for group in groups:
        for old, new in CopyPaste.FORMER_NAMES.items() if "paste" in group else ():
            group["paste"][old] = group["paste"].pop(new)
    views = json.dumps([groups, LAWS_VERSION], sort_keys=True)
    return hashlib.sha256(views.encode()).hexdigest()[:16]
