"""An image as the mean of its patches' embeddings, for 1, 16, 64, 256 of them; BagSSL's columns.

Patches have the scale that was trained on. The mean is that of h, or of z = g(h) of each patch,
before any normalisation; train and test images have as many patches, of the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch.nn.functional import cosine_similarity

from patchmill.kernels.patches import Aggregator
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.settings import Bounds
from patchmill.loaders.recipe import Recipe
from patchmill.training import data
from patchmill.training.config.settings import Count, Whole
from patchmill.training.data import Split
from patchmill.training.evaluation import knn, linear, patch_views
from patchmill.training.evaluation.features import Features, gathered, images_seen
from patchmill.training.evaluation.findings import Findings, percent
from patchmill.training.evaluation.patch_views import Sampling
from patchmill.training.evaluation.trained import Space, Trained
from patchmill.training.evaluation.whole import protocol_of

FORWARD = 2**23  # numbers in the views that the network sees at a time
RENDERED = 2**26  # and in those of a batch, the patches of some images
CURVE = (1, 4, 9, 16, 36, 64, 144, 256)


@dataclass
class Settings:
    counts: list[Count] = field(default_factory=lambda: [1, 16, 64, 256])  # patches of an image
    sampling: Sampling = "grid"  # grid: at even steps; random: drawn as in training
    photometric: bool = False  # random patches with training's colours, as EMP-SSL evaluates
    area: Annotated[float, Bounds(above=0, most=1)] | None = None  # of a patch, if not training's
    probe: Literal["auto", "none", "moco", "vicreg", "emp_ssl", "nmce"] = "emp_ssl"  # besides kNN
    images: Count | None = None  # at most so many of the training images
    curve: Whole = 128  # test images for the curve of convergence; 0 for none
    neighbours: Whole = 8  # patches that the picture of nearest neighbours asks for; 0 for none
    seed: Whole = 0  # of the probes


class Means:
    """Represents a batch by the means over its patches: of h and, beside it, of z."""

    def __init__(self, run: Trained) -> None:
        self._networks = run.method.backbone, run.method.projector

    def __call__(self, batch: ViewBatch) -> torch.Tensor:
        (group,) = batch.views
        views = batch.flat(group)
        image = torch.arange(len(views), device=views.device) % len(batch)
        sums: list[Aggregator] = []
        size = max(1, FORWARD // views[0].numel())
        for part, index in zip(views.split(size), image.split(size), strict=True):
            embeddings = self.embed(part)
            if not sums:
                sums = [Aggregator(len(batch), it.shape[1], "none", it.device) for it in embeddings]
            for total, rows in zip(sums, embeddings, strict=True):
                total.add(rows, index)
        self.widths = [total.mean().shape[1] for total in sums]
        return torch.cat([total.mean() for total in sums], 1)

    def embed(self, views: torch.Tensor) -> list[torch.Tensor]:
        backbone, projector = self._networks
        h = backbone(views)
        return [h.float()] if projector is None else [h.float(), projector(h).float()]


def evaluate(run: Trained, settings: Settings) -> Findings:
    columns = _columns(run, settings)
    probe = None if settings.probe == "none" else protocol_of(run, settings.probe)
    table = {}
    for name, recipe in columns.items():
        train = means(run, recipe, "train", settings.images, f"{name}: training images")
        tests = means(run, recipe, "test", None, f"{name}: test images")
        table[name] = {
            space: _scores(
                run, train[space], tests[space], probe, settings.seed, f"{name}, {space}"
            )
            for space in run.spaces
        }
    curve = _curve(run, settings) if settings.curve else {}
    picture = _picture(run, settings)
    return _findings(run, settings, columns, table, probe, curve, picture)


def means(
    run: Trained, recipe: Recipe, split: Split, most: int | None = None, what: str = ""
) -> dict[Space, Features]:
    """By space, the means over the patches that the recipe makes of each image."""
    (views,) = recipe.views
    at_once = max(1, RENDERED // (views.total * 3 * views.size**2))
    batch = min(run.config.evaluate.batch_size, at_once)
    loader = data.open_evaluation(run.config, run.world, split, recipe, batch)
    represent, what = Means(run), what or f"{split}ing images"
    with track(what, images_seen(loader, most), unit="images") as advance:
        rows, labels, ids = gathered(represent, run.method, loader, most, run.amp, advance)
    parts = rows.split(represent.widths, 1)
    return {
        space: Features(part.contiguous(), labels, ids)
        for space, part in zip(run.spaces, parts, strict=True)
    }


def _columns(run: Trained, settings: Settings) -> dict[str, Recipe]:
    named = {1: "1 patch"}
    return {"central": patch_views.central(run.config)} | {
        named.get(count, f"{count} patches"): _patches(run, settings, count)
        for count in sorted(set(settings.counts))
    }


def _patches(run: Trained, settings: Settings, count: int) -> Recipe:
    if settings.sampling == "grid":
        return patch_views.grid(run.config, count, settings.area)
    return patch_views.random(run.config, count, settings.photometric, settings.area)


def _scores(
    run: Trained, train: Features, tests: Features, probe: str | None, seed: int, what: str
) -> dict[str, float]:
    its = run.config.evaluate
    found = {"knn": knn.accuracy(train, tests, its.k, its.temperature)}
    if probe:
        protocol = linear.PROTOCOLS[probe]
        with track(f"{what}: linear probe", protocol.epochs, unit="epochs") as advance:
            (told,) = linear.probe(train, tests, protocol, seed=seed, advance=advance)
        found |= {"linear": told.last, "linear_best": told.best}
    return found


def _curve(run: Trained, settings: Settings) -> dict[str, list[float]]:
    """How near the mean of so many patches is to that of the most, and to the central view."""
    most = max(settings.counts)
    counts = [it for it in CURVE if it < most] if settings.sampling == "grid" else _powers(most)

    def of(recipe: Recipe, what: str) -> dict[Space, Features]:
        return means(run, recipe, "test", settings.curve, f"curve: {what}")

    last = of(_patches(run, settings, most), f"{most} patches")
    central = of(patch_views.central(run.config), "central")
    curve: dict[str, list[float]] = {"patches": [*counts, most]}
    for count in curve["patches"]:
        some = last
        if count < most:
            some = of(_patches(run, settings, int(count)), f"{count} patches")
        for space in run.spaces:
            for name, other in (("most", last), ("central", central)):
                cosine = cosine_similarity(some[space].rows, other[space].rows).mean().item()
                curve.setdefault(f"{space}_to_{name}", []).append(cosine)
    return curve


def _powers(most: int) -> list[int]:
    return [2**i for i in range(most.bit_length()) if 2**i < most]


def _picture(run: Trained, settings: Settings) -> str | None:
    if not settings.neighbours or run.world.rank:
        return None
    from patchmill.training.evaluation import neighbours

    recipe = patch_views.grid(run.config, neighbours.OF_AN_IMAGE, settings.area)
    path = run.folder / neighbours.FILE
    neighbours.draw(run, recipe, settings.neighbours).save(path)
    return path.name


def _findings(
    run: Trained,
    settings: Settings,
    columns: dict[str, Recipe],
    table: dict[str, dict[Space, dict[str, float]]],
    probe: str | None,
    curve: dict[str, list[float]],
    picture: str | None,
) -> Findings:
    its, metrics = run.config.evaluate, ["knn", *(["linear"] if probe else [])]
    drawn = settings.sampling + (" with training's colours" if settings.photometric else "")
    about = f"means over patches ({drawn}); kNN: k={its.k}, T={its.temperature:g}"
    scalars = {
        f"{name.replace(' ', '_')}_{space}_{metric}": scores[metric]
        for name, spaces in table.items()
        for space, scores in spaces.items()
        for metric in metrics
    }
    conditions = {"k": its.k, "temperature": its.temperature, "probe": probe}
    return Findings(
        "patches",
        about + (f"; linear probe of {probe} on cached means, last epoch" if probe else ""),
        ["views", *(f"{metric} in {space}" for space in run.spaces for metric in metrics)],
        [
            [name, *(percent(scores[m]) for scores in spaces.values() for m in metrics)]
            for name, spaces in table.items()
        ],
        {
            **conditions,
            "sampling": settings.sampling,
            "photometric": settings.photometric,
            "recipes": {name: _described(recipe) for name, recipe in columns.items()},
            "columns": table,
            "curve": curve,
            "neighbours": picture,
        },
        scalars,
    )


def _described(recipe: Recipe) -> dict[str, Any]:
    (views,) = recipe.to_dict()["views"]
    return {name: views[name] for name in ("count", "size", "crop")}
