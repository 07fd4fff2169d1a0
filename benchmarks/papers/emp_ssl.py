"""EMP-SSL: twenty patches of each image, one epoch (Tong, Chen, Ma, LeCun 2023, arXiv 2304.03977).

    python benchmarks/papers/emp_ssl.py data.root=DIR [--budget cpu|gpu|paper] [--json FILE] [...]

The paper claims that self-supervised learning needs few epochs if each step sees many patches of an
image: on CIFAR-10 a ResNet-18 with 20 patches has 80.6 % after one epoch and 90.7 % after ten, by a
linear probe on the mean over an image's patches, where methods with two views have 25 to 41 % after
one and 49 to 70 % after ten. (The first epoch of a schedule of 30; a schedule of one gives 84.2 %.)

Networks are trained with 2 and with 20 patches per image. One epoch with 20 has as many patches as
ten epochs with 2. All are evaluated on the mean over 1 to 16 patches or more, drawn as in training,
and on the whole image, and compared with the untrained network.

DIR contains CIFAR-10 as `train` and `test`. --budget cpu uses 150 training and 100 test images per
class from class folders, a ResNet-10 and AdamW; gpu: all images, the paper's network and optimiser,
and also ten epochs; paper: also 200 patches and 30 epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from patchmill.benchmarks.lib.papers import Budget, Claim, Experiment, Paper, Rows, run
from patchmill.benchmarks.lib.seeds import Figures
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.files import cache
from patchmill.loaders.files.writing import write_atomic

TAKEN = {"train": 150, "test": 100}  # images of each class in the cpu budget
DATA, UNTRAINED = "data=cifar10", "untrained"
NAMES = {"central": "whole image"}


class Run(NamedTuple):
    patches: int
    epochs: int

    @property
    def name(self) -> str:
        return f"{self.patches} patches, {self.epochs} epoch{'s' if self.epochs > 1 else ''}"

    @property
    def folder(self) -> str:
        return f"patches{self.patches}-epochs{self.epochs}"


FEW, LONG, MANY = Run(2, 1), Run(2, 10), Run(20, 1)
SMALL_NETWORK = (
    *("model=resnet10", "method.hidden=1024", "method.dim=256"),
    *("train.precision=bf16", "train.channels_last=true"),
    *("optim=adamw", "optim.lr=0.001", "optim.weight_decay=0.01", "train.batch_size=25"),
)
BUDGETS = {
    "cpu": Budget((DATA, "method=emp_ssl", "evaluate.knn_every=0", *SMALL_NETWORK)),
    "gpu": Budget((DATA, "method=emp_ssl", "evaluate.knn_every=0", "train.precision=bf16"), 1),
    "paper": Budget((DATA, "method=emp_ssl", "evaluate.knn_every=0"), 1),
}
RUNS = {
    "cpu": (FEW, LONG, MANY),
    "gpu": (FEW, LONG, MANY, Run(20, 10)),
    "paper": (
        FEW,
        LONG,
        MANY,
        *(Run(p, e) for p in (20, 200) for e in (1, 10, 30) if (p, e) != MANY),
    ),
}
IMAGES = {"cpu": 1000, "gpu": 10_000}  # training images of kNN and probes
COUNTS = {"cpu": (1, 4, 16), "gpu": (1, 16, 64), "paper": (1, 16, 128)}


def _size(budget: Budget) -> str:
    return next(name for name, one in BUDGETS.items() if one.overrides == budget.overrides)


def trainings(budget: Budget, seed: int) -> dict[str, list[str]]:
    return {
        one.folder: [
            f"method.views=emp_ssl(patches={one.patches}, size=32)",
            f"train.epochs={one.epochs}",
        ]
        for one in RUNS[_size(budget)]
    }


def measure(experiment: Experiment, seed: int) -> dict[str, Figures]:
    size = _size(experiment.budget)
    folders = {one.name: experiment.folder(one.folder, seed) for one in RUNS[size]}
    blank = experiment.untrained(UNTRAINED, seed, like=folders[MANY.name])
    counts = ",".join(map(str, COUNTS[size]))
    limits = [f"images={IMAGES[size]}"] if size in IMAGES else []
    overrides = [f"counts=[{counts}]", "sampling=random", "photometric=true", *limits]
    rows: dict[str, Figures] = {}
    for name, folder in ({UNTRAINED: blank} | folders).items():
        found = experiment.evaluate(folder, "patches", *overrides, "curve=0", "neighbours=0")
        rows |= dict(figures(name, found))
    return rows


def figures(network: str, found: Mapping[str, Any]) -> Iterator[tuple[str, Figures]]:
    for view, spaces in found["columns"].items():
        columns = {
            column if space == "h" else f"{column}_{space}": scores[column]
            for space, scores in spaces.items()
            for column in ("knn", "linear")
        }
        yield row_name(network, NAMES.get(view, view)), columns


def row_name(network: str, views: str) -> str:
    return f"{network}: {views}"


MEAN = "16 patches"
CLAIMS = (
    Claim(
        "One epoch: 20 patches over 2",
        row_name(MANY.name, MEAN),
        row_name(FEW.name, MEAN),
        "linear",
    ),
    Claim(
        "As many patches in all: one epoch of 20 over ten of 2",
        row_name(MANY.name, MEAN),
        row_name(LONG.name, MEAN),
        "linear",
    ),
    Claim(
        "One epoch of 20 patches over no training",
        row_name(MANY.name, MEAN),
        row_name(UNTRAINED, MEAN),
        "linear",
    ),
    Claim(
        "The mean of 16 patches over 1",
        row_name(MANY.name, MEAN),
        row_name(MANY.name, "1 patch"),
        "linear",
    ),
    Claim(
        "The mean of 16 patches over the whole image",
        row_name(MANY.name, MEAN),
        row_name(MANY.name, NAMES["central"]),
        "linear",
    ),
    Claim(
        "h over z",
        row_name(MANY.name, MEAN),
        row_name(MANY.name, MEAN),
        "linear",
        other_column="linear_z",
    ),
    Claim(
        "20 patches: ten epochs over one",
        row_name("20 patches, 10 epochs", MEAN),
        row_name(MANY.name, MEAN),
        "linear",
    ),
)


def draw(path: Path, rows: Rows) -> None:
    """Linear probe by the number of averaged patches, one line per network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    by_network: dict[str, list[tuple[int, float, float]]] = {}
    for row in rows:
        network, _, views = row["name"].partition(": ")
        if views != NAMES["central"]:
            point = int(views.split()[0]), 100 * row["linear"], 100 * row.get("linear_std", 0.0)
            by_network.setdefault(network, []).append(point)
    for (network, points), colour in zip(by_network.items(), COLOURS, strict=False):
        counts, means, spread = (list(column) for column in zip(*points, strict=True))
        axes.plot(counts, means, color=colour, marker="o", markersize=3, label=network)
        low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=4)
    axes.set_xticks(counts, list(map(str, counts)))
    axes.minorticks_off()
    axes.set_xlabel("patches in the mean")
    axes.set_ylabel("linear probe, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=100)


def part_of_cifar(budget: str, given: Sequence[str]) -> Iterator[str]:
    """Settings for the cpu budget's subset of data.root; none at other budgets."""
    settings = dict(word.split("=", 1) for word in given if "=" in word)
    if budget != "cpu" or "data.train" in settings or "data.root" not in settings:
        return
    root = Path(settings["data.root"]).expanduser()
    for split, count in TAKEN.items():
        yield f"data.{split}={list_part(root, split, count)}"


def list_part(root: Path, split: str, count: int) -> Path:
    """A list of `count` images per class of root/split, evenly spaced by name."""
    classes = sorted(path for path in (root / split).glob("*") if path.is_dir())
    images = {path: sorted(file for file in path.iterdir() if file.is_file()) for path in classes}
    if not images or min(map(len, images.values())) < count:
        raise MillError(
            f"--budget cpu reads {count} images of each class from {root / split}: unpack CIFAR-10 "
            "there as class folders, or set your own subset with data.train and data.test"
        )
    lines = ["path,label"]
    for path, files in images.items():
        lines += [
            f"{file.absolute()},{path.name}" for file in files[:: len(files) // count][:count]
        ]
    target = cache.folder("lists") / f"{split}-{count}.csv"
    write_atomic(target, "\n".join(lines) + "\n")
    return target


COLOURS = ("#a0a0a0", "#d4b04c", "#c8783c", "#2a6f97", "#6ea0c0", "#7a9e5f", "#8d6a9f", "#555555")

PAPER = Paper(
    name="emp_ssl",
    title="EMP-SSL on CIFAR-10: many patches and one epoch, few patches and many epochs",
    budgets=BUDGETS,
    trainings=trainings,
    measure=measure,
    columns={"knn": "kNN", "linear": "linear", "knn_z": "kNN, z", "linear_z": "linear, z"},
    claims=CLAIMS,
    plot=draw,
    added=part_of_cifar,
)

main = partial(run, PAPER)


if __name__ == "__main__":
    run_command(main)
