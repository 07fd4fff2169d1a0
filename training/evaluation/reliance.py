"""evaluate=reliance: accuracy as backgrounds and colours of the test images change.

The same foregrounds are tested five times: with backgrounds as in training, with other backgrounds,
on plain grey, all in greyscale, and with hues rotated at random. Made-up scenes are redrawn with
other backgrounds; for other data, masks define the foreground.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.recipe import Colour, CopyPaste, Recipe
from patchmill.training import data
from patchmill.training.config.recipes import evaluation_recipe
from patchmill.training.config.settings import Config
from patchmill.training.evaluation import knn, linear, online, single_view, trained_run
from patchmill.training.evaluation.features import Features, count_images, extract
from patchmill.training.evaluation.result import EvaluationResult, percent
from patchmill.training.evaluation.settings import Reliance as Settings
from patchmill.training.evaluation.trained_run import TrainedRun

SAME, SWAPPED, ALONE = "as in training", "swapped", "foreground alone"
GREY, HUE = "grey", "random hue"

Scores = dict[str, dict[str, float]]  # classifier -> test set -> accuracy


class TestSet(NamedTuple):
    data: str  # a value of data.test
    recipe: Recipe


def evaluate(run: TrainedRun, settings: Settings) -> EvaluationResult:
    test_sets = variants(run.config)
    scores = _scores(run, run.network(settings.space), settings, test_sets)
    untrained = None
    if settings.untrained:
        method = trained_run.untrained(run.config, run.world)
        network = trained_run.network(method, settings.space, run.config.evaluate.encoder)
        untrained = _scores(run, network, settings, test_sets)
    return _result(settings, test_sets, scores, untrained)


def variants(config: Config) -> dict[str, TestSet]:
    """Return the test images with each kind of background and of colours."""
    view, test = evaluation_recipe(config), config.data.test
    if test is None:
        raise MillError(f"data={config.data.name} has no test images: name some with data.test=DIR")
    scenes = scene_settings(test)
    if scenes is None:
        return _sets(test, view, TestSet(test, _pasted(view, "images")))
    bias = (scene_settings(config.data.train) or {}).get("background_bias", 0.0)
    same = calls.text("scenes", {**scenes, "background_bias": bias, "swap_backgrounds": False})
    swapped = calls.text("scenes", {**scenes, "background_bias": 0.0, "swap_backgrounds": True})
    return _sets(same, view, TestSet(swapped, view))


def _sets(same: str, view: Recipe, swapped: TestSet) -> dict[str, TestSet]:
    return {
        SAME: TestSet(same, view),
        SWAPPED: swapped,
        ALONE: TestSet(same, _pasted(view, "grey")),
        GREY: TestSet(same, _coloured(view, Colour(p=0.0, grey=1.0))),
        HUE: TestSet(same, _coloured(view, Colour(hue=0.5, p=1.0, grey=0.0))),
    }


def scene_settings(text: str) -> dict[str, Any] | None:
    """Parse the arguments of `scenes(...)`; None for other data."""
    if text.startswith("scenes:"):
        return {"count": int(text.removeprefix("scenes:"))}
    return calls.parse(text)[1] if text == "scenes" or text.startswith("scenes(") else None


def _pasted(view: Recipe, background: str) -> Recipe:
    """Return the view with every foreground pasted on a background, with sharp edges."""
    paste = CopyPaste(1.0, background, blur_p=0.0)
    return replace(view, views=tuple(replace(group, paste=paste) for group in view.views))


def _coloured(view: Recipe, colour: Colour) -> Recipe:
    """Return the view with other colours."""
    return replace(view, views=tuple(replace(group, colour=colour) for group in view.views))


def _scores(
    run: TrainedRun, network: nn.Module, settings: Settings, test_sets: dict[str, TestSet]
) -> Scores:
    """Return the accuracies of a network's features; each classifier is fitted once."""
    evaluate = run.config.evaluate
    train = single_view.features(run, network, "train", settings.images or evaluate.images)
    tests = {name: _features(run, network, name, found) for name, found in test_sets.items()}
    scores = {
        "knn": {
            name: knn.accuracy(train, features, evaluate.k, evaluate.temperature)
            for name, features in tests.items()
        }
    }
    if settings.probe == "ridge":
        scores["ridge"] = online.linear_accuracies(train, tests)
    elif settings.probe != "none":
        protocol = linear.PROTOCOLS[single_view.resolve_protocol(run, settings.probe)]
        with track("linear probe", protocol.epochs, unit="epochs") as advance:
            scores["linear"] = linear.accuracies(train, tests, protocol, settings.seed, advance)
    return scores


def _features(run: TrainedRun, network: nn.Module, name: str, test_set: TestSet) -> Features:
    config = replace(run.config, data=replace(run.config.data, test=test_set.data))
    loader = data.open_evaluation(config, run.world, "test", test_set.recipe)
    with track(f"tests: {name}", count_images(loader), unit="images") as advance:
        return extract(network, loader, None, run.amp, advance)


def _result(
    settings: Settings, tests: dict[str, TestSet], scores: Scores, untrained: Scores | None
) -> EvaluationResult:
    gaps = {
        metric: {name: by_name[SAME] - value for name, value in by_name.items() if name != SAME}
        for metric, by_name in scores.items()
    }
    columns = {metric: (by_name, gaps[metric]) for metric, by_name in scores.items()}
    for metric, by_name in (untrained or {}).items():
        columns[f"{metric}, untrained"] = (by_name, {})
    rows = [[name, *(percent(values[name]) for values, _ in columns.values())] for name in tests]
    rows += [
        [f"gap: {name}", *(percent(gap[name]) if gap else "" for _, gap in columns.values())]
        for name in tests
        if name != SAME
    ]
    scalars = {
        f"{kind}_{name.replace(' ', '_')}_{metric}": value
        for kind, table in (("tests", scores), ("gap", gaps))
        for metric, values in table.items()
        for name, value in values.items()
    }
    content = {
        "space": settings.space,
        "tests": {name: test_set.data for name, test_set in tests.items()},
        "scores": scores,
        "gaps": gaps,
    }
    return EvaluationResult(
        "reliance",
        f"accuracy in {settings.space} as backgrounds and colours change; a gap is accuracy lost",
        ["test images", *columns],
        rows,
        content if untrained is None else content | {"untrained": untrained},
        scalars,
    )
