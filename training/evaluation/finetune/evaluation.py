"""evaluate=finetune: fine-tune the backbone and a new classifier end to end on few labels.

Subsets are drawn by seed and stored as files, so that all methods learn from the same images. The
baseline is the same network, trained from scratch on the same subsets with the same protocol.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchmill.loaders.build import require_samples
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.settings import to_plain
from patchmill.loaders.recipe import Crop, Recipe, Shift
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.subset import Subset
from patchmill.training import data
from patchmill.training.config.recipes import evaluation_recipe
from patchmill.training.evaluation.finetune import protocols, score, subsets
from patchmill.training.evaluation.finetune.protocols import Protocol
from patchmill.training.evaluation.finetune.score import Task
from patchmill.training.evaluation.finetune.subsets import Few
from patchmill.training.evaluation.result import EvaluationResult, percent
from patchmill.training.evaluation.settings import Finetune as Settings
from patchmill.training.evaluation.trained_run import TrainedRun

CHANGES = (
    *("epochs", "batch", "lr", "head_lr", "baseline_lr", "schedule", "warmup", "weight_decay"),
    *("layer_decay", "drop_path", "smoothing", "mixup", "cutmix", "erase"),
)


def evaluate(run: TrainedRun, settings: Settings) -> EvaluationResult:
    chosen, tasks = {}, []
    source = data.open_numbered(run.config, "train")
    recipe = _recipe(run, settings)
    for few in _few(run, settings, source):
        share = len(few[0].ids) / len(source)
        name, protocol = protocols.resolve(run.config, settings.protocol, share)
        changes = {name: getattr(settings, name) for name in CHANGES} | {"name": settings.optimiser}
        if settings.steps is not None:
            batch = settings.batch or protocol.batch
            changes["epochs"] = _epochs(settings, len(few[0].ids), batch)
        protocol = protocols.override(
            protocol, {name: value for name, value in changes.items() if value is not None}
        )
        chosen[name] = protocol
        variant = run.config.evaluate.encoder if settings.variant == "auto" else settings.variant
        tasks.append(Task(run, source, few, recipe, protocol, variant))
        _check(tasks[-1])
    table, weights = {}, score.hash_weights(run)
    for task in tasks:
        title = task.few[0].title
        table[f"fine-tuned on {title}"] = score.by_seed(task, settings.seeds, weights)
        if settings.baseline:
            scratch = task._replace(protocol=protocols.for_baseline(task.protocol))
            table[f"from scratch on {title}"] = score.by_seed(scratch, settings.seeds, None)
    return _result(settings, chosen, tasks, table)


def _few(run: TrainedRun, settings: Settings, source: Source) -> list[list[Few]]:
    """Return the images to learn from: for each share of the labels, those of each seed."""
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise MillError(f"seeds={settings.seeds} must be one or more different numbers")
    if settings.list is not None:
        if settings.labels is not None:
            raise MillError("labels= draws subsets, list= names one: give only one of the two")
        return [[subsets.listed(source, Path(settings.list))] * len(settings.seeds)]
    labels = 0.1 if settings.labels is None else settings.labels
    shares = labels if isinstance(labels, list) else [labels]
    folder = Path(settings.subsets) if settings.subsets else run.folder / score.FOLDER
    return [
        [subsets.stored(source, share, seed, folder) for seed in settings.seeds]
        for share in sorted(set(shares))
    ]


def _epochs(settings: Settings, images: int, batch: int) -> int:
    """Return the fewest whole epochs that make `steps` steps."""
    if settings.epochs is not None:
        raise MillError("epochs= and steps= both set the length of training: give only one")
    assert settings.steps is not None
    return math.ceil(settings.steps / max(images // batch, 1))


def _recipe(run: TrainedRun, settings: Settings) -> Recipe:
    """Return the training views, by default of the evaluation size, cropped as in `supervised`."""
    if settings.views is None:
        (view, *_) = evaluation_recipe(run.config).views
        law, name = (Shift(), "shifted") if view.size <= protocols.SMALL else (Crop(), "cropped")
        return Recipe((replace(view, crop=law, flip=0.5),), f"randomly {name} and flipped")
    try:
        recipe = load_recipe(settings.views)
    except MillError as error:
        raise MillError(f"views: {error}") from None
    if len(recipe.views) > 1:
        raise MillError(f"views: fine-tuning takes one group of views, but there are {recipe}")
    return recipe


def _check(task: Task) -> None:
    """Raise a MillError if the batch size does not fit the ranks, the subsets or mixing."""
    batch, ranks = task.protocol.batch, task.run.world.size
    if batch % ranks:
        raise MillError(
            f"batch={batch} cannot be divided among {ranks} ranks: use "
            f"{max(batch // ranks, 1) * ranks}, for example"
        )
    views = batch // ranks * task.recipe.views[0].total
    if task.protocol.mixes and views % 2:
        raise MillError(
            f"mixup and cutmix mix the views of a batch in pairs, but batch={batch} makes {views} "
            f"on each rank: use batch={batch + ranks}, or mixup=0 cutmix=0"
        )
    for few in task.few:
        subset = Subset(task.source, few.ids)
        require_samples(subset, batch, f"batch={batch}", "use a smaller batch, or more labels")


# ----------------------------------------------------------------------------------------- result


def _result(
    settings: Settings,
    chosen: dict[str, Protocol],
    tasks: list[Task],
    table: dict[str, list[dict[str, float]]],
) -> EvaluationResult:
    names = " and ".join(chosen)
    per_task = 1 + settings.baseline
    images = [len(task.few[0].ids) for task in tasks for _ in range(per_task)]
    epochs = [task.protocol.epochs for task in tasks for _ in range(per_task)]
    networks = {
        title: {"images": count, "epochs": long, **_summary(scores)}
        for (title, scores), count, long in zip(table.items(), images, epochs, strict=True)
    }
    metrics = [name for name in ("top1", "top5") if name in next(iter(networks.values()))]
    keys = [
        f"finetune_{task.few[0].key}{end}" for task in tasks for end in ("", "_baseline")[:per_task]
    ]
    first = tasks[0]
    length = " to ".join(map(str, sorted({min(epochs), max(epochs)})))
    return EvaluationResult(
        "finetune",
        f"fine-tuning with {names}, {length} epochs, tested after the "
        f"last on one view ({first.run.config.evaluate.view}); {_over(settings.seeds)}",
        ["network", "images", *(metric.replace("top", "top-") for metric in metrics)],
        [
            [title, f"{row['images']:,}", *(format_mean(row, metric) for metric in metrics)]
            for title, row in networks.items()
        ],
        {
            "protocol": names,
            "variant": settings.variant,
            "seeds": settings.seeds,
            "views": str(first.recipe),
            "finetuned": networks,
            "protocols": {name: to_plain(protocol) for name, protocol in chosen.items()},
        },
        {name: row["top1"] for name, row in zip(keys, networks.values(), strict=True)},
    )


def _over(seeds: list[int]) -> str:
    """Format `mean and standard deviation over seeds 0, 1, 2`."""
    if len(seeds) == 1:
        return f"only seed {seeds[0]}"
    return f"mean and standard deviation over seeds {', '.join(map(str, seeds))}"


def _summary(scores: list[dict[str, float]]) -> dict[str, Any]:
    """Summarise over seeds: means, sample standard deviations of accuracies, and each top-1."""
    summary: dict[str, Any] = {}
    for name in scores[0]:
        values = [one[name] for one in scores]
        summary[name] = statistics.fmean(values)
        if name.startswith("top"):
            summary[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
    return summary | {"top1_of_seeds": [one["top1"] for one in scores]}


def format_mean(row: dict[str, Any], metric: str) -> str:
    """Format `75.9% ± 0.7`; without a deviation for a single seed."""
    std = row[f"{metric}_std"]
    return percent(row[metric]) + ("" if std is None else f" ± {100 * std:.1f}")
