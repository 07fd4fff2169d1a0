"""evaluate=patches: images as means over 1, 16, 64, 256 patches' embeddings, as in BagSSL's tables.

Patches have the scale of training. The mean is over h, or over each patch's z = g(h), before any
normalisation; training and test images have the same number and kind of patches. With
sampling=grid, each number of patches has a grid of its own, and a single patch is in the centre,
where objects are. With sampling=random, 4 patches are the first 4 of 16.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn.functional import cosine_similarity, normalize

from patchmill.loaders.common.progress import track
from patchmill.loaders.recipe import Recipe
from patchmill.training.data import Split
from patchmill.training.evaluation import knn, linear, trained_run
from patchmill.training.evaluation.features import Features
from patchmill.training.evaluation.patches import neighbours, patch_views
from patchmill.training.evaluation.patches.patch_means import extract_first, extract_means
from patchmill.training.evaluation.result import EvaluationResult, percent
from patchmill.training.evaluation.settings import Patches as Settings
from patchmill.training.evaluation.single_view import resolve_protocol
from patchmill.training.evaluation.trained_run import Space, TrainedRun

CURVE = (1, 4, 9, 16, 36, 64, 144, 256)  # patch counts of the convergence curve, on grids

Means = dict[Space, Features]
Curve = list[float | None]


def evaluate(run: TrainedRun, settings: Settings) -> EvaluationResult:
    recipes = _recipes(run, settings)
    probe = None if settings.probe == "none" else resolve_protocol(run, settings.probe)
    train = _means_by_row(run, settings, recipes, "train")
    tests = _means_by_row(run, settings, recipes, "test")
    table = {
        name: {
            space: _scores(
                run,
                train[name][space],
                tests[name][space],
                probe,
                settings.seed,
                f"{name}, {space}",
            )
            for space in run.spaces
        }
        for name in recipes
    }
    curves = {"curve": _convergence(run, settings)} if settings.curve else {}
    if settings.curve and settings.untrained:
        blank = replace(run, method=trained_run.untrained(run.config, run.world))
        curves["untrained_curve"] = _convergence(blank, settings)
    picture, locality = _neighbours(run, settings)
    return _result(run, settings, recipes, table, probe, curves, picture, locality)


def _recipes(run: TrainedRun, settings: Settings) -> dict[str, Recipe]:
    """Return the recipe of each row of the table, by its name."""
    whole = {"central": patch_views.central(run.config)}
    if settings.enlarged:
        whole["enlarged"] = patch_views.enlarged(run.config, settings.area)
    return whole | {
        _row(count): _patches(run, settings, count) for count in sorted(set(settings.counts))
    }


def _row(count: int) -> str:
    return "1 patch" if count == 1 else f"{count} patches"


def _patches(run: TrainedRun, settings: Settings, count: int) -> Recipe:
    if settings.sampling == "grid":
        return patch_views.grid(run.config, count, settings.area)
    return patch_views.random(run.config, count, settings.photometric, settings.area)


def _means_by_row(
    run: TrainedRun, settings: Settings, recipes: dict[str, Recipe], split: Split
) -> dict[str, Means]:
    limit = settings.images if split == "train" else None
    title = f"{split}{'ing' if split == 'train' else ''} images"
    of_patches = _means_by_count(run, settings, settings.counts, split, limit, title)
    rows = {_row(count): means for count, means in of_patches.items()}
    return {
        name: rows.get(name) or extract_means(run, recipe, split, limit, f"{name}: {title}")
        for name, recipe in recipes.items()
    }


def _means_by_count(
    run: TrainedRun,
    settings: Settings,
    counts: list[int],
    split: Split,
    limit: int | None,
    title: str,
) -> dict[int, Means]:
    """Return means by number of patches: each on its own grid, or over the first patches drawn."""
    if settings.sampling == "random":
        recipe = _patches(run, settings, max(counts))
        return extract_first(run, recipe, counts, split, limit, f"{max(counts)} patches: {title}")
    return {
        count: extract_means(
            run, _patches(run, settings, count), split, limit, f"{_row(count)}: {title}"
        )
        for count in sorted(set(counts))
    }


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


def _convergence(run: TrainedRun, settings: Settings) -> dict[str, Curve]:
    """Return the cosine of means over few patches to the mean over most, or to the central view.

    In addition to the cosine to the image's own central view, return that to other images' and
    the share of images whose own central view is the nearest of all.
    """
    most = max(settings.counts)
    fewer = [n for n in CURVE if n < most] if settings.sampling == "grid" else _powers_of_2(most)
    counts = [*fewer, most]
    means = _means_by_count(run, settings, counts, "test", settings.curve, "curve")
    recipe = patch_views.central(run.config)
    central = extract_means(run, recipe, "test", settings.curve, "curve: central")
    curve: dict[str, Curve] = {"patches": list(counts)}
    for count in counts:
        for space in run.spaces:
            rows, whole = means[count][space].rows, central[space].rows
            to_most = cosine_similarity(rows, means[most][space].rows).mean().item()
            same, other, found = _similarities(rows, whole)
            for name, value in (
                ("to_most", to_most),
                ("to_central", same),
                ("to_others", other),
                ("found", found),
            ):
                curve.setdefault(f"{space}_{name}", []).append(value)
    return curve


def _similarities(rows: torch.Tensor, whole: torch.Tensor) -> tuple[float, float | None, float]:
    """Return the mean cosine of rows to their own in `whole`, to others; share nearest to own.

    The cosine to others is None for a single row.
    """
    cosine = normalize(rows) @ normalize(whole).T
    count, own = len(rows), cosine.diagonal()
    others = None
    if count > 1:
        others = ((cosine.sum() - own.sum()) / (count * (count - 1))).item()
    nearest = (cosine.argmax(1) == torch.arange(count, device=cosine.device)).float()
    return own.mean().item(), others, nearest.mean().item()


def _powers_of_2(below: int) -> list[int]:
    return [2**i for i in range(below.bit_length()) if 2**i < below]


def _neighbours(
    run: TrainedRun, settings: Settings
) -> tuple[str | None, dict[Space, dict[str, float]]]:
    """Draw the picture and measure locality on rank 0; return the file name and the measures."""
    if not settings.neighbours or run.world.rank:
        return None, {}
    recipe = patch_views.grid(run.config, neighbours.PER_IMAGE, settings.area)
    patches = neighbours.collect(run, recipe)
    path = run.folder / neighbours.FILE
    neighbours.draw(patches, settings.neighbours).save(path)
    return path.name, neighbours.locality(patches)


def _result(
    run: TrainedRun,
    settings: Settings,
    columns: dict[str, Recipe],
    table: dict[str, dict[Space, dict[str, float]]],
    probe: str | None,
    curves: dict[str, dict[str, Curve]],
    picture: str | None,
    locality: dict[Space, dict[str, float]],
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
        + (f"; linear probe with {probe}'s protocol on cached means, last epoch" if probe else ""),
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
            **curves,
            "neighbours": picture,
            "locality": locality,
        },
        scalars,
    )


def _view_settings(recipe: Recipe) -> dict[str, Any]:
    (views,) = recipe.to_dict()["views"]
    return {name: views[name] for name in ("count", "size", "crop")}
