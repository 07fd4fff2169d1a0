"""Damaged recipes, as YAML and as text, and damaged arguments of a training command."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from patchmill.loaders import presets
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe
from patchmill.training.config import compose
from trust.check import Check, Outcome, Task
from trust.fuzz.damage import damaged
from trust.fuzz.sentences import ODD_WORDS, tried, with_odd_value, with_odd_word

CALLS = (
    "dino(local_crops=6, global_scale=(0.4, 1.0))",
    "moco_v2(size=96)",
    "eval(size=224, short_side=256)",
    "selfie(size=32, patch=8)",
    "bagssl(short_side=48)",
    "dilo(size=32, scale=(0.4, 1.0))",
)
SETTINGS = (
    *("optim.lr=0.1", "train.batch_size=32", "train.epochs=3", "optim.betas=[0.9,0.95]"),
    *("method.views=moco_v2(size=32)", "evaluate.k=20", "data.train=scenes:44", "model.patch=auto"),
    *("train.device=cpu", "train.workers=auto", "optim.milestones=[1,2]", "seed=3", "name=run"),
    *("train.channels_last=auto", "data.masks=none", "evaluate.stop_at=0.5", "train.keep=2"),
)


def yaml(task: Task) -> Outcome:
    """Recipe files: damaged bytes, odd words, odd values; recipes survive a round trip."""
    outcome, path = Outcome(), task.folder / "recipe.yaml"
    seeds = [load_recipe(call) for call in CALLS]
    texts = [seed.to_yaml() for seed in seeds]
    for index in range(task.tries):
        draw = task.random(index)
        text, how = draw.choice(texts), index % 3
        if how == 0:
            done, data = damaged(text.encode(), draw)
        elif how == 1:
            done, data = "odd word", with_odd_word(text, draw).encode("utf-8", "surrogatepass")
        else:
            done, data = "odd value", b""
        if data:
            path.write_bytes(data)
            tried(outcome, partial(read_file, path), f"try {index}, {done}")
        else:
            plain = with_odd_value(draw.choice(seeds).to_dict(), draw)
            tried(outcome, partial(_read_plain, plain), f"try {index}, {done}")
    return outcome


def read_file(path: Path) -> None:
    _read(load_recipe(path))


def _read_plain(plain: Any) -> None:
    _read(Recipe.from_dict(plain))


def _compose(given: list[str]) -> None:
    assert compose.to_yaml(compose.compose(given))


def _read(recipe: Recipe) -> None:
    text = recipe.to_yaml()
    again = Recipe.from_yaml(text)
    assert again == recipe and again.fingerprint() == recipe.fingerprint(), "another recipe"
    assert str(recipe)


def words(task: Task) -> Outcome:
    """Recipes as text, and arguments of `patchmill train`."""
    outcome = Outcome()
    knobs = list(presets.ALL)
    for index in range(task.tries):
        draw = task.random(index)
        if index % 4:
            call = draw.choice((*CALLS, f"{draw.choice(knobs)}()"))
            text = with_odd_word(call, draw)
            if text.strip().endswith((".yaml", ".yml")):
                continue
            tried(outcome, partial(load_recipe, text), f"try {index}: {text[:80]!r}")
        else:
            setting = draw.choice(SETTINGS)
            key, _, value = setting.partition("=")
            odd = draw.choice((draw.choice(ODD_WORDS), with_odd_word(value, draw)))
            word = f"{key}={odd}" if draw.random() < 0.8 else with_odd_word(setting, draw)
            given = ["method=moco", "data=scenes", "scale=demo", word]
            tried(outcome, partial(_compose, given), f"try {index}: {word[:80]!r}")
    return outcome


CHECKS = (
    Check(
        "fuzz-recipes", "damaged recipe files and settings, read", yaml, 200, 20_000, 100_000, 30
    ),
    Check("fuzz-words", "odd words as recipes and settings", words, 200, 10_000, 50_000, 40),
)
