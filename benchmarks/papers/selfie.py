"""Selfie against learning from scratch, by the share of the labels.

    python benchmarks/papers/selfie.py [--budget cpu] [--json FILE] [--plot FILE] [key=value ...]

The paper (Trinh, Luong, Le 2019): a patch network learns without labels which of an image's masked
patches belongs where. A ResNet that begins with it is then fine-tuned on 5, 10, 20 and 100 % of the
labels, and is more accurate than the same ResNet from scratch, most so with few labels, and less
spread over five seeds.

Each seed trains Selfie on all images without labels, and then draws a subset of the labels, on
which both networks learn by the same schedule. `placed` is the share of masked patches that Selfie
puts in their places at the end of its training, beside that of guessing.

--budget cpu: 2000 made-up scenes of 64 pixels, patches of 16 pixels, and a small ResNet that is
fine-tuned in as many steps for each share of the labels. The paper has photos, ResNet-50 and
120,000 steps, and tunes rates for each share. --budget gpu: 10,000 scenes of 128 pixels, and a
ResNet-18. --budget paper: ImageNet as published, with data.root=DIR; data=cifar10 data.root=DIR
takes CIFAR-10, instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from patchmill.benchmarks.lib.papers import Budget, Claim, Experiment, Paper, Rows, run
from patchmill.benchmarks.lib.seeds import Figures
from patchmill.loaders.common.errors import run_command
from patchmill.training.config import compose
from patchmill.training.methods.selfie import masked_patches
from patchmill.training.runtime import records

SHARES = {5: 0.05, 10: 0.1, 20: 0.2, 100: 1.0}  # of the labels, by their percentages
NETWORKS = {"supervised": "from scratch", "selfie": "fine-tuned"}  # as evaluate=finetune names them
LAST = 5  # rows of the log that `placed` is the mean of


@dataclass(frozen=True)
class Size(Budget):
    """A budget with the words of its fine-tuning."""

    finetune: tuple[str, ...] = ()


BUDGETS = {
    "cpu": Size(
        seeds=5,
        tests=2000,
        words=(
            *("data=scenes", "scale=demo", "data.train=scenes(count=2000, size=64)"),
            *("train.precision=bf16", "train.channels_last=true", "evaluate.knn_every=0"),
        ),
        finetune=("steps=600", "batch=32", "lr=0.05"),
    ),
    "gpu": Size(
        seeds=5,
        tests=5000,
        words=(
            *("data=scenes", "scale=demo", "size=128", "method.views=selfie(size=128, patch=32)"),
            *("data.train=scenes(count=10000, size=128)", "data.cache=device:2GB"),
            *("model.name=resnet18", "method.heads=8", "method.hidden=512", "evaluate.knn_every=0"),
            *("train.batch_size=256", "train.epochs=20", "optim.warmup=1"),
        ),
        finetune=("steps=300", "batch=128", "lr=0.05"),
    ),
    "paper": Size(seeds=5, words=("data=imagenet",), finetune=("protocol=selfie",)),
}


def trainings(budget: Budget, seed: int) -> dict[str, list[str]]:
    return {"selfie": ["method=selfie"]}


def measure(experiment: Experiment, seed: int) -> dict[str, Figures]:
    """Accuracies on each share of the labels, of Selfie's run and from scratch."""
    folder = experiment.folder("selfie", seed)
    labels = ",".join(map(str, SHARES.values()))
    words = cast(Size, experiment.budget).finetune
    tuned = experiment.evaluate(
        folder, "finetune", f"labels=[{labels}]", f"seeds=[{seed}]", "baseline=true", *words
    )
    rows: dict[str, dict[str, float]] = {
        name: {
            f"at_{percent}": tuned["finetuned"][f"{title} on {percent} % of the labels"]["top1"]
            for percent in SHARES
        }
        for name, title in NETWORKS.items()
    }
    rows["selfie"]["placed"] = _placed(folder)
    rows["guessing"] = {"placed": 1 / masked_patches(compose.load(folder).method)}
    return rows


def _placed(folder: Path) -> float:
    """Share of masked patches that were put in their places in the last steps of the log."""
    logged = [share for share in records.read(folder)["accuracy"] if share is not None][-LAST:]
    return sum(logged) / len(logged)


def draw(path: Path, rows: Rows) -> None:
    """Accuracy by the share of the labels, with bands of one standard deviation over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    by_name: Mapping[str, Mapping] = {row["name"]: row for row in rows}
    shares: Sequence[int] = list(SHARES)
    for name, colour in (("supervised", "#808080"), ("selfie", "#2a6f97")):
        row = by_name[name]
        means = [100 * row[f"at_{percent}"] for percent in shares]
        stds = [100 * row.get(f"at_{percent}_std", 0.0) for percent in shares]
        low, high = ([m + s * d for m, d in zip(means, stds, strict=True)] for s in (-1, 1))
        axes.plot(shares, means, color=colour, marker="o", markersize=4, label=name)
        axes.fill_between(shares, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{percent} %" for percent in shares])
    axes.minorticks_off()
    axes.set_xlabel("share of the labels")
    axes.set_ylabel("accuracy, %")
    axes.set_title(PAPER.title, loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


PAPER = Paper(
    name="selfie",
    title="Selfie, fine-tuned, against the same network from scratch",
    budgets=BUDGETS,
    trainings=trainings,
    measure=measure,
    columns={**{f"at_{percent}": f"at {percent} %" for percent in SHARES}, "placed": "placed"},
    claims=(
        *(
            Claim(f"Selfie over supervised at {percent} %", "selfie", "supervised", f"at_{percent}")
            for percent in SHARES
        ),
        Claim("Masked patches placed over guessing", "selfie", "guessing", "placed"),
    ),
    plot=draw,
)


def main(words: Sequence[str] | None = None) -> None:
    run(PAPER, words)


if __name__ == "__main__":
    run_command(main)
