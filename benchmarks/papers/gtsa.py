"""Compare GTSA with DINO on scenes of several objects, and ablate each of GTSA's losses.

    python benchmarks/papers/gtsa.py [--budget cpu|gpu|paper] [--json FILE] [key=value ...]

Kim and Lee (arXiv 2304.08014) pre-train on images of several objects. Features that preserve
location and rotation, learnt with three losses on feature maps, should serve classification,
segmentation and detection better than DINO's, which ignore both: ViT-S/16, 100 epochs on COCO, 59.7
against 54.8 % on iNaturalist, 30.6 against 27.3 mIoU on ADE20K, 35.8 against 32.4 AP on COCO.

Here GTSA, DINO, and GTSA without its loss on shared regions (crop), on matched patches (match) or
on rotations learn from scenes of three to six objects, whose colours are independent of the class.
Network, epochs, batches, and the number and sizes of views are the same for all. Frozen teachers
are scored by kNN and a linear classifier of the main object's class on one view; by segmenting all
objects, with kNN on tokens at --budget cpu and a feature pyramid elsewhere; and, for GTSA and DINO,
by a feature pyramid that detects them. Baselines are the untrained network and a colour histogram.

Unlike in the paper, images are synthetic, the network is small, training takes minutes, and the
encoders stay frozen where the paper trains all layers. --budget paper trains all layers too:
data.root=DIR then contains coco/train2017, coco/val2017, coco/annotations, inat2019/train,
inat2019/val (one folder per class) and ADEChallengeData2016. A linear classifier replaces the
paper's fine-tuning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from patchmill.benchmarks.lib import floors
from patchmill.benchmarks.lib.papers import Budget, Claim, Experiment, Paper, Rows, run
from patchmill.benchmarks.lib.seeds import Figures
from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.training.config import compose
from patchmill.training.runtime import records

LOSSES = {"crop": "shared regions", "match": "matched patches", "rotation": "rotations"}
COLUMNS = {"knn": "kNN", "linear": "linear", "miou": "mIoU", "ap": "box AP"}
SHADES = {"dino": "#c8783c", "gtsa": "#2a6f97"}  # of bars; lighter for GTSA without a loss
OTHER, WITHOUT = "#a0a0a0", "#a9c5d8"


def scenes(count: int, seed: int, side: int) -> str:
    return calls.text("scenes", {"count": count, "seed": seed, "objects": (3, 6), "size": side})


@dataclass(frozen=True)
class Size(Budget):
    """A budget with the overrides of each method and each dense task."""

    gtsa: tuple[str, ...] = ()
    dino: tuple[str, ...] = ()
    segment: tuple[str, ...] = ()
    detect: tuple[str, ...] = ()


NETWORK = ("model.stem=auto", "model.drop_path=0.0", "model.positions=dino")
ONCE = "evaluate.knn_every=${train.epochs}"  # before and after training
BUDGETS = {
    "cpu": Size(
        seeds=3,
        tests=2000,
        overrides=(
            *("data=many_scenes", "scale=demo", "size=64", "train.precision=bf16"),
            *("model.name=test_resnet", "model.stem=imagenet", "model.drop_path=0.0"),
            *(f"data.train={scenes(2000, 0, 128)}", "train.epochs=4", "train.batch_size=32"),
            *("optim.warmup=0.5", ONCE),
        ),
        dino=(
            # Colour changes as strong as GTSA's, and crops of its sizes: DINO's did no better
            "method.views=swav(global_size=64, local_size=48, local_crops=2, "
            "global_scale=(0.3, 1.0), local_scale=(0.1, 0.3))",
            *("method.freeze=0", "method.momentum=0.95", "optim.lr=0.003"),
        ),
        segment=("head=knn", "size=128", f"data.test={scenes(500, 1, 128)}"),
        detect=(
            *("freeze=true", "head=faster", "iterations=400", "short_sides=[128]", "test_side=128"),
            *("picture=0", f"test={scenes(200, 1, 128)}"),
        ),
    ),
    "gpu": Size(
        seeds=3,
        tests=2000,
        overrides=(
            *("data=many_scenes", "scale=demo", "size=96"),
            *("model.name=vit_small_patch16_224", "model.depth=6", "model.patch=8", *NETWORK),
            *(f"data.train={scenes(8000, 0, 192)}", "train.epochs=10", "train.batch_size=128"),
            *("optim.lr=0.001", ONCE),
        ),
        gtsa=(
            "method.views=gtsa(global_size=96, local_size=48, local_crops=4, strength=0.4)",
            *("method.bins=[8, 4]", "method.dim=384"),
        ),
        dino=("method.views=dino(global_size=96, local_size=48, local_crops=4, distort=0.0)",),
        segment=("head=fpn", "freeze=true", "size=128", f"data.test={scenes(500, 1, 192)}"),
        detect=("freeze=true", "head=faster", "picture=0", f"test={scenes(300, 1, 192)}"),
    ),
    "paper": Size(
        seeds=1,
        overrides=(
            *("data=folder", "scale=paper", "data.train=coco/train2017"),
            *("data.bank=inat2019/train", "data.test=inat2019/val", "evaluate.images=300000"),
            ONCE,
        ),
        segment=("head=fpn", "root={root}/ADEChallengeData2016"),
        detect=(
            "train={root}/coco/annotations/instances_train2017.json",
            "test={root}/coco/annotations/instances_val2017.json",
        ),
    ),
}


# --------------------------------------------------------------------------------------- the runs


def trainings(budget: Budget, seed: int) -> dict[str, list[str]]:
    size = cast(Size, budget)
    tests = list(_tests(size))
    gtsa = ["method=gtsa", *tests, *size.gtsa]
    return {
        "gtsa": gtsa,
        "dino": ["method=dino", *tests, *size.dino],
        **{f"gtsa-no-{loss}": [*gtsa, f"method.{loss}=0"] for loss in LOSSES},
    }


def _tests(budget: Budget) -> Iterator[str]:
    """The override that makes training test on as many scenes as the budget sets."""
    if budget.tests is not None:
        (train,) = (one for one in budget.overrides if one.startswith("data.train="))
        _, arguments = calls.parse(train.partition("=")[2])
        yield f"data.test={scenes(budget.tests, 1, arguments['size'])}"


def measure(experiment: Experiment, seed: int) -> dict[str, Figures]:
    names = experiment.trainings(seed)
    rows: dict[str, dict[str, float]] = {"untrained": {}}
    for name in ("dino", "gtsa", *(name for name in names if name.startswith("gtsa-"))):
        folder = experiment.folder(name, seed)
        before, after = _accuracies(folder)
        networks = _dense(experiment, folder, name)
        rows[name] = after | networks["trained"]
        if name == "gtsa":
            rows["untrained"] = before | networks["untrained"]
    return _floors(experiment, seed) | rows


def _accuracies(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracies of the main object's class, before and after training."""
    measured = [row for row in records.evaluations(folder) if "linear_online" in row]
    if len(measured) < 2:
        raise MillError(f"{folder} was not evaluated after training: omit evaluate.knn_every")
    before, after = (
        {"knn": row["knn"], "linear": row["linear_online"]} for row in (measured[0], measured[-1])
    )
    return before, after


def _dense(experiment: Experiment, folder: Path, name: str) -> dict[str, dict[str, float]]:
    """Figures of segmentation and detection for the trained and the untrained network."""
    size, root = cast(Size, experiment.budget), compose.load(folder).data.root
    untrained = f"untrained={str(name == 'gtsa').lower()}"

    def evaluate(task: str, overrides: Sequence[str]) -> dict[str, Any]:
        overrides = [override.format(root=root) for override in overrides]
        return experiment.evaluate(folder, task, *overrides, untrained)

    backbones = evaluate("segment", size.segment)["backbones"]
    figures = {when: {"miou": backbone["mIoU"]} for when, backbone in backbones.items()}
    if name in SHADES:
        networks = evaluate("detect", size.detect)["networks"]
        for when, network in networks.items():
            figures[when]["ap"] = network["box"]["ap"]
    return figures


def _floors(experiment: Experiment, seed: int) -> dict[str, Figures]:
    """kNN on colours only; empty for photos."""
    if experiment.budget.tests is None:
        return {}
    config = compose.load(experiment.folder("gtsa", seed))
    test = config.data.test or ""
    accuracies = floors.knn_accuracies(config.data.train, test, config.evaluate.k)
    return {"histogram": {"knn": accuracies["histogram"]}}


# ------------------------------------------------------------------------------------- the report


def claims() -> Iterator[Claim]:
    for column, title in COLUMNS.items():
        yield Claim(f"{title}: GTSA over DINO", "gtsa", "dino", column)
    for loss, about in LOSSES.items():
        for column in ("knn", "linear", "miou"):
            text = f"{COLUMNS[column]}: GTSA over GTSA without the loss of {about}"
            yield Claim(text, "gtsa", f"gtsa-no-{loss}", column)


def draw(path: Path, rows: Rows) -> None:
    """Bars of every row, one panel per column, with standard deviations over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.7 + 0.28 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(COLUMNS), sharey=True)
    names = [row["name"] for row in rows]
    for axes, (column, title) in zip(panels, COLUMNS.items(), strict=True):
        shown = [row for row in rows if column in row]
        axes.barh(
            [names.index(row["name"]) for row in shown],
            [100 * row[column] for row in shown],
            xerr=[100 * row.get(f"{column}_std", 0.0) for row in shown],
            color=[_shade(row["name"]) for row in shown],
            ecolor="#555555",
            capsize=2,
        )
        axes.set_title(f"{title}, %", loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names, fontsize=9)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=110)


def _shade(name: str) -> str:
    return SHADES.get(name, WITHOUT if name.startswith("gtsa-") else OTHER)


PAPER = Paper(
    name="gtsa",
    title="GTSA against DINO on scenes of several objects",
    budgets=BUDGETS,
    trainings=trainings,
    measure=measure,
    columns=COLUMNS,
    claims=tuple(claims()),
    plot=draw,
)

main = partial(run, PAPER)


if __name__ == "__main__":
    run_command(main)
