"""evaluate=patches: images as means over 1, 16, 64, 256 patches' embeddings, as in BagSSL's tables.

Patches have the scale of training. The mean is over h, or over each patch's z = g(h), before any
normalisation; training and test images have the same number and kind of patches.
"""

from __future__ import annotations

from typing import Any

from torch.nn.functional import cosine_similarity

from patchmill.loaders.common.progress import track
from patchmill.loaders.recipe import Recipe
from patchmill.training.evaluation import knn, linear, neighbours, patch_views
from patchmill.training.evaluation.features import Features
from patchmill.training.evaluation.patch_means import extract_means
from patchmill.training.evaluation.result import EvaluationResult, percent
from patchmill.training.evaluation.settings import Patches as Settings
from patchmill.training.evaluation.single_view import resolve_protocol
from patchmill.training.evaluation.trained_run import Space, TrainedRun

CURVE = (1, 4, 9, 16, 36, 64, 144, 256)  # patch counts of the convergence curve, on grids


def evaluate(run: TrainedRun, settings: Settings) -> EvaluationResult:
    columns = _recipes(run, settings)
    probe = None if settings.probe == "none" else resolve_protocol(run, settings.probe)
    table = {}
    for name, recipe in columns.items():
        train = extract_means(run, recipe, "train", settings.images, f"{name}: training images")
        tests = extract_means(run, recipe, "test", None, f"{name}: test images")
        table[name] = {
            space: _scores(
                run, train[space], tests[space], probe, settings.seed, f"{name}, {space}"
            )
            for space in run.spaces
        }
    curve = _convergence(run, settings) if settings.curve else {}
    picture = _draw_neighbours(run, settings)
    return _result(run, settings, columns, table, probe, curve, picture)


def _recipes(run: TrainedRun, settings: Settings) -> dict[str, Recipe]:
    """Recipe of each row of the table, by its name."""
    names = {1: "1 patch"}
    return {"central": patch_views.central(run.config)} | {
        names.get(count, f"{count} patches"): _patches(run, settings, count)
        for count in sorted(set(settings.counts))
    }


def _patches(run: TrainedRun, settings: Settings, count: int) -> Recipe:
    if settings.sampling == "grid":
        return patch_views.grid(run.config, count, settings.area)
    return patch_views.random(run.config, count, settings.photometric, settings.area)


def _scores(
    run: TrainedRun, train: Features, tests: Features, probe: str | None, seed: int, title: str
) -> dict[str, float]:
    evaluate = run.config.evaluate
    scores = {"knn": knn.accuracy(train, tests, evaluate.k, evaluate.temperature)}
    if probe:
        protocol = linear.PROTOCOLS[probe]
        with track(f"{title}: linear probe", protocol.epochs, unit="epochs") as advance:
            (fit,) = linear.probe(train, tests, protocol, seed=seed, advance=advance)
        scores |= {"linear": fit.last, "linear_best": fit.best}
    return scores


def _convergence(run: TrainedRun, settings: Settings) -> dict[str, list[float]]:
    """Cosine between means over few patches and the mean over the most, or the central view."""
    most = max(settings.counts)
    counts = [n for n in CURVE if n < most] if settings.sampling == "grid" else _powers_of_2(most)

    def means_of(recipe: Recipe, title: str) -> dict[Space, Features]:
        return extract_means(run, recipe, "test", settings.curve, f"curve: {title}")

    of_most = means_of(_patches(run, settings, most), f"{most} patches")
    central = means_of(patch_views.central(run.config), "central")
    curve: dict[str, list[float]] = {"patches": [*counts, most]}
    for count in curve["patches"]:
        means = of_most
        if count < most:
            means = means_of(_patches(run, settings, int(count)), f"{count} patches")
        for space in run.spaces:
            for name, other in (("most", of_most), ("central", central)):
                cosine = cosine_similarity(means[space].rows, other[space].rows).mean().item()
                curve.setdefault(f"{space}_to_{name}", []).append(cosine)
    return curve


def _powers_of_2(below: int) -> list[int]:
    return [2**i for i in range(below.bit_length()) if 2**i < below]


def _draw_neighbours(run: TrainedRun, settings: Settings) -> str | None:
    """Draw the picture on rank 0; returns the file's name."""
    if not settings.neighbours or run.world.rank:
        return None
    recipe = patch_views.grid(run.config, neighbours.PER_IMAGE, settings.area)
    path = run.folder / neighbours.FILE
    neighbours.draw(run, recipe, settings.neighbours).save(path)
    return path.name


def _result(
    run: TrainedRun,
    settings: Settings,
    columns: dict[str, Recipe],
    table: dict[str, dict[Space, dict[str, float]]],
    probe: str | None,
    curve: dict[str, list[float]],
    picture: str | None,
) -> EvaluationResult:
    evaluate, metrics = run.config.evaluate, ["knn", *(["linear"] if probe else [])]
    sampling = settings.sampling + (" with training's colours" if settings.photometric else "")
    about = f"means over patches ({sampling}); kNN: k={evaluate.k}, T={evaluate.temperature:g}"
    scalars = {
        f"{name.replace(' ', '_')}_{space}_{metric}": scores[metric]
        for name, spaces in table.items()
        for space, scores in spaces.items()
        for metric in metrics
    }
    conditions = {"k": evaluate.k, "temperature": evaluate.temperature, "probe": probe}
    return EvaluationResult(
        "patches",
        about
        + (f"; linear probe by {probe}'s protocol on cached means, last epoch" if probe else ""),
        ["views", *(f"{metric} in {space}" for space in run.spaces for metric in metrics)],
        [
            [name, *(percent(scores[m]) for scores in spaces.values() for m in metrics)]
            for name, spaces in table.items()
        ],
        {
            **conditions,
            "sampling": settings.sampling,
            "photometric": settings.photometric,
            "recipes": {name: _view_settings(recipe) for name, recipe in columns.items()},
            "columns": table,
            "curve": curve,
            "neighbours": picture,
        },
        scalars,
    )


def _view_settings(recipe: Recipe) -> dict[str, Any]:
    (views,) = recipe.to_dict()["views"]
    return {name: views[name] for name in ("count", "size", "crop")}
