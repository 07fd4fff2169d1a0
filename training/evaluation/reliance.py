"""evaluate=reliance: accuracy with backgrounds as in training, swapped, and removed.

The same foregrounds are tested three times: with backgrounds as in training, with other
backgrounds, and on plain grey. Made-up scenes are drawn again for that; for other data, masks say
what is foreground.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.recipe import CopyPaste, Recipe
from patchmill.training import data
from patchmill.training.config.recipes import evaluation_recipe
from patchmill.training.config.settings import Config
from patchmill.training.evaluation import knn, linear, single_view
from patchmill.training.evaluation.features import Features, count_images, extract
from patchmill.training.evaluation.result import EvaluationResult, percent
from patchmill.training.evaluation.settings import Reliance as Settings
from patchmill.training.evaluation.trained_run import TrainedRun

SAME, SWAPPED, ALONE = "as in training", "swapped", "foreground alone"


class TestSet(NamedTuple):
    data: str  # as data.test
    recipe: Recipe


def evaluate(run: TrainedRun, settings: Settings) -> EvaluationResult:
    evaluate, network = run.config.evaluate, run.network(settings.space)
    test_sets = variants(run.config)
    train = single_view.features(run, network, "train", settings.images or evaluate.images)
    tests = {name: _features(run, settings, name, test_set) for name, test_set in test_sets.items()}
    scores = {
        "knn": {
            name: knn.accuracy(train, features, evaluate.k, evaluate.temperature)
            for name, features in tests.items()
        }
    }
    if settings.probe != "none":
        scores["linear"] = _linear_scores(run, settings, train, tests)
    gaps = {
        metric: {name: by_name[SAME] - by_name[name] for name in (SWAPPED, ALONE)}
        for metric, by_name in scores.items()
    }
    return _result(settings, test_sets, scores, gaps)


def variants(config: Config) -> dict[str, TestSet]:
    """Test images with each kind of background."""
    view, test = evaluation_recipe(config), config.data.test
    if test is None:
        raise MillError(
            f"data={config.data.name} has no images to test on: name some, as data.test=DIR"
        )
    on_grey = _pasted(view, "grey")
    scenes = scene_settings(test)
    if scenes is None:
        return {
            SAME: TestSet(test, view),
            SWAPPED: TestSet(test, _pasted(view, "images")),
            ALONE: TestSet(test, on_grey),
        }
    bias = (scene_settings(config.data.train) or {}).get("background_bias", 0.0)
    same = calls.text("scenes", {**scenes, "background_bias": bias, "swap_backgrounds": False})
    swapped = calls.text("scenes", {**scenes, "background_bias": 0.0, "swap_backgrounds": True})
    return {
        SAME: TestSet(same, view),
        SWAPPED: TestSet(swapped, view),
        ALONE: TestSet(same, on_grey),
    }


def scene_settings(text: str) -> dict[str, Any] | None:
    """Arguments of `scenes(...)`; None for other data."""
    if text.startswith("scenes:"):
        return {"count": int(text.removeprefix("scenes:"))}
    return calls.parse(text)[1] if text == "scenes" or text.startswith("scenes(") else None


def _pasted(view: Recipe, background: str) -> Recipe:
    """The view with every foreground pasted on a background, with sharp edges."""
    paste = CopyPaste(1.0, background, blur_p=0.0)
    return replace(view, views=tuple(replace(group, paste=paste) for group in view.views))


def _features(run: TrainedRun, settings: Settings, name: str, test_set: TestSet) -> Features:
    config = replace(run.config, data=replace(run.config.data, test=test_set.data))
    loader = data.open_evaluation(config, run.world, "test", test_set.recipe)
    with track(f"tests: {name}", count_images(loader), unit="images") as advance:
        return extract(run.network(settings.space), loader, None, run.amp, advance)


def _linear_scores(
    run: TrainedRun, settings: Settings, train: Features, tests: dict[str, Features]
) -> dict[str, float]:
    protocol = linear.PROTOCOLS[single_view.resolve_protocol(run, settings.probe)]
    scores = {}
    for name, features in tests.items():  # the same classifier each time: it sees no test images
        with track(f"linear probe: {name}", protocol.epochs, unit="epochs") as advance:
            (fit,) = linear.probe(train, features, protocol, seed=settings.seed, advance=advance)
        scores[name] = fit.last
    return scores


def _result(
    settings: Settings,
    tests: dict[str, TestSet],
    scores: dict[str, dict[str, float]],
    gaps: dict[str, dict[str, float]],
) -> EvaluationResult:
    rows = [[name, *(percent(by_name[name]) for by_name in scores.values())] for name in tests]
    rows += [
        [f"gap: {name}", *(percent(gap[name]) for gap in gaps.values())]
        for name in (SWAPPED, ALONE)
    ]
    scalars = {
        f"{kind}_{name.replace(' ', '_')}_{metric}": value
        for kind, table in (("background", scores), ("gap", gaps))
        for metric, values in table.items()
        for name, value in values.items()
    }
    return EvaluationResult(
        "reliance",
        f"accuracy in {settings.space} as backgrounds change; a gap is accuracy lost",
        ["backgrounds", *scores],
        rows,
        {
            "space": settings.space,
            "tests": {name: test_set.data for name, test_set in tests.items()},
            "scores": scores,
            "gaps": gaps,
        },
        scalars,
    )
