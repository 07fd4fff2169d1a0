"""How much a network relies on backgrounds: what it tells where they are changed, or gone.

The test images are the same things three times: with backgrounds as in training, with others, and
on plain grey. Scenes are painted anew for that; of other data, masks say what is foreground.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.recipe import CopyPaste, Recipe
from patchmill.training import data
from patchmill.training.config.recipes import evaluation_recipe
from patchmill.training.config.settings import Config, Count, Whole
from patchmill.training.evaluation import knn, linear, whole
from patchmill.training.evaluation.features import Features, extract, images_seen
from patchmill.training.evaluation.findings import Findings, percent
from patchmill.training.evaluation.trained import Space, Trained

SAME, SWAPPED, ALONE = "as in training", "swapped", "foreground alone"


@dataclass
class Settings:
    probe: Literal["auto", "none", "moco", "vicreg", "emp_ssl", "nmce"] = "auto"  # besides kNN
    space: Space = "h"  # the backbone's h, or the projector's z
    images: Count | None = None  # at most so many of the training images
    seed: Whole = 0  # of the probe


class Tests(NamedTuple):
    place: str  # as data.test
    recipe: Recipe


def evaluate(run: Trained, settings: Settings) -> Findings:
    its, network = run.config.evaluate, run.network(settings.space)
    train = whole.features(run, network, "train", settings.images or its.images)
    tests = {
        name: _features(run, settings, name, which) for name, which in variants(run.config).items()
    }
    scores = {"knn": {name: knn.accuracy(train, it, its.k, its.temperature)
                      for name, it in tests.items()}}  # fmt: skip
    if settings.probe != "none":
        scores["linear"] = _probed(run, settings, train, tests)
    gaps = {
        metric: {name: found[SAME] - found[name] for name in (SWAPPED, ALONE)}
        for metric, found in scores.items()
    }
    return _findings(settings, variants(run.config), scores, gaps)


def variants(config: Config) -> dict[str, Tests]:
    """The test images with each kind of background."""
    view, place = evaluation_recipe(config), config.data.test
    if place is None:
        raise MillError(
            f"data={config.data.name} has no images to test on: name some, as data.test=DIR"
        )
    plain = _pasted(view, "grey")
    made = scene_settings(place)
    if made is None:
        return {
            SAME: Tests(place, view),
            SWAPPED: Tests(place, _pasted(view, "images")),
            ALONE: Tests(place, plain),
        }
    bias = (scene_settings(config.data.train) or {}).get("background_bias", 0.0)
    same = _scenes({**made, "background_bias": bias, "swap_backgrounds": False})
    swapped = _scenes({**made, "background_bias": 0.0, "swap_backgrounds": True})
    return {SAME: Tests(same, view), SWAPPED: Tests(swapped, view), ALONE: Tests(same, plain)}


def scene_settings(place: str) -> dict[str, Any] | None:
    """What `scenes(...)` sets; None for other data."""
    if place.startswith("scenes:"):
        return {"count": int(place.removeprefix("scenes:"))}
    return calls.parse(place)[1] if place == "scenes" or place.startswith("scenes(") else None


def _scenes(made: dict[str, Any]) -> str:
    return f"scenes({', '.join(f'{name}={value!r}' for name, value in made.items())})"


def _pasted(view: Recipe, background: str) -> Recipe:
    """All foregrounds on another background, cut out sharply."""
    paste = CopyPaste(1.0, background, blur_p=0.0)
    return replace(view, views=tuple(replace(group, paste=paste) for group in view.views))


def _features(run: Trained, settings: Settings, name: str, tests: Tests) -> Features:
    config = replace(run.config, data=replace(run.config.data, test=tests.place))
    loader = data.open_evaluation(config, run.world, "test", tests.recipe)
    with track(f"tests: {name}", images_seen(loader), unit="images") as advance:
        return extract(run.network(settings.space), loader, None, run.amp, advance)


def _probed(
    run: Trained, settings: Settings, train: Features, tests: dict[str, Features]
) -> dict[str, float]:
    protocol = linear.PROTOCOLS[whole.protocol_of(run, settings.probe)]
    found = {}
    for name, it in tests.items():  # the same classifier each time: it sees no test images
        with track(f"linear probe: {name}", protocol.epochs, unit="epochs") as advance:
            (told,) = linear.probe(train, it, protocol, seed=settings.seed, advance=advance)
        found[name] = told.last
    return found


def _findings(
    settings: Settings,
    tests: dict[str, Tests],
    scores: dict[str, dict[str, float]],
    gaps: dict[str, dict[str, float]],
) -> Findings:
    rows = [[name, *(percent(found[name]) for found in scores.values())] for name in tests]
    rows += [[f"gap: {name}", *(percent(gap[name]) for gap in gaps.values())]
             for name in (SWAPPED, ALONE)]  # fmt: skip
    scalars = {
        f"{kind}_{name.replace(' ', '_')}_{metric}": value
        for kind, table in (("background", scores), ("gap", gaps))
        for metric, values in table.items()
        for name, value in values.items()
    }
    return Findings(
        "reliance",
        f"what {settings.space} tells where backgrounds change; the gap is what is lost",
        ["backgrounds", *scores],
        rows,
        {
            "space": settings.space,
            "tests": {name: it.place for name, it in tests.items()},
            "scores": scores,
            "gaps": gaps,
        },
        scalars,
    )
