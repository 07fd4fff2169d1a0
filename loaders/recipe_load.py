"""Load a recipe from user input: a preset's name or call, or a YAML file."""

from __future__ import annotations

from pathlib import Path

from patchmill.loaders import presets
from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe


def load_recipe(recipe: Recipe | str | Path) -> Recipe:
    """Load a recipe: a Recipe, a preset with its knobs (`"dino(local_crops=6)"`) or YAML."""
    if isinstance(recipe, Recipe):
        return recipe
    if (name := getattr(recipe, "__name__", None)) in presets.ALL:
        raise MillError(f"the recipe is a function: call it, as presets.{name}()")
    if not isinstance(recipe, str | Path):
        plain = recipe is None or isinstance(recipe, int | float)
        shown = repr(recipe) if plain else f"a {type(recipe).__name__}"
        raise MillError(
            f"a recipe is a Recipe such as Recipe((Views('a', 2, 224),)), a preset such as "
            f"'dino(local_crops=6)' or a YAML file, not {shown}"
        )
    text = str(recipe)
    if not text.endswith((".yaml", ".yml")):
        return calls.call(text, presets.ALL, "preset")
    try:
        return Recipe.from_yaml(Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise MillError(f"cannot read the recipe {text}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MillError(f"cannot read the recipe {text}: it is not a text file") from None
