"""Selfie against training from scratch, by the share of labels.

    python benchmarks/papers/selfie.py [--budget cpu] [--json FILE] [--plot FILE] [key=value ...]

The paper (Trinh, Luong, Le 2019): a patch network learns without labels which of an image's masked
patches belongs where. A ResNet initialised with it is then fine-tuned on 5, 10, 20 and 100 % of the
labels, and is more accurate than the same ResNet from scratch, especially with few labels, and
varies less over five seeds.

Each seed trains Selfie on all images without labels, and then draws a subset of the labels, on
which all networks are trained with the same schedule. selfie-jitter is Selfie with independent
colour jitter of each patch, which the paper does not have: if colours continue from patch to patch,
they reveal the positions, and shapes and textures need not be learnt. `placed` is the share of
masked patches placed correctly at the end of training, next to that of guessing.

--budget cpu: 4000 synthetic scenes of 64 pixels, whose colours are independent of the class,
patches of 16 pixels, and a small ResNet, fine-tuned for the same number of steps at each share of
the labels. The paper has photos, ResNet-50 and 120,000 steps, and tunes rates for each share.
--budget gpu: 10,000 scenes of 128 pixels, and a ResNet-18. --budget paper: ImageNet as published,
with data.root=DIR; data=cifar10 data.root=DIR uses CIFAR-10 instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from patchmill.benchmarks.lib.papers import Budget, Claim, Experiment, Paper, Rows, run
from patchmill.benchmarks.lib.seeds import Figures
from patchmill.loaders.common.errors import run_command
from patchmill.training.config import compose
from patchmill.training.methods.selfie import masked_patches
from patchmill.training.runtime import records

SHARES = {5: 0.05, 10: 0.1, 20: 0.2, 100: 1.0}  # of the labels, by their percentages
SHADES = {"supervised": "#808080", "selfie": "#2a6f97", "selfie-jitter": "#c8783c"}
LAST = 5  # rows of the log over which `placed` is averaged


@dataclass(frozen=True)
class Size(Budget):
    """A budget with the overrides of its fine-tuning, and Selfie's views with colour jitter."""

    finetune: tuple[str, ...] = ()
    jittered: str = "selfie(size=${size}, jitter=1.0)"


BUDGETS = {
    "cpu": Size(
        seeds=5,
        tests=2000,
        overrides=(
            *("data=scenes", "scale=demo", "data.train=scenes(count=4000, size=64)"),
            "method.views=selfie(size=64, patch=16)",
            *("train.epochs=3", "train.precision=bf16", "train.channels_last=true"),
            "evaluate.knn_every=0",
        ),
        finetune=("steps=250", "batch=32", "lr=0.05", "warmup=0"),
        jittered="selfie(size=64, patch=16, jitter=1.0)",
    ),
    "gpu": Size(
        seeds=5,
        tests=5000,
        overrides=(
            *("data=scenes", "scale=demo", "size=128", "method.views=selfie(size=128, patch=32)"),
            *("data.train=scenes(count=10000, size=128)", "data.cache=device:2GB"),
            *("model.name=resnet18", "method.heads=8", "method.hidden=512", "evaluate.knn_every=0"),
            *("train.batch_size=256", "train.epochs=20", "optim.warmup=1"),
        ),
        finetune=("steps=300", "batch=128", "lr=0.05"),
        jittered="selfie(size=128, patch=32, jitter=1.0)",
    ),
    "paper": Size(seeds=5, overrides=("data=imagenet",), finetune=("protocol=selfie",)),
}


def trainings(budget: Budget, seed: int) -> dict[str, list[str]]:
    """Selfie as published, and with independent colour jitter of each patch."""
    jittered = f"method.views={cast(Size, budget).jittered}"
    return {"selfie": ["method=selfie"], "selfie-jitter": ["method=selfie", jittered]}


def measure(experiment: Experiment, seed: int) -> dict[str, Figures]:
    """Accuracies at each share of the labels, for Selfie's runs and from scratch."""
    folder = experiment.folder("selfie", seed)
    tuned = _accuracies(experiment, "selfie", seed, baseline=True)
    jittered = _accuracies(experiment, "selfie-jitter", seed)
    return {
        "supervised": tuned["from scratch"],
        "selfie": tuned["fine-tuned"] | {"placed": _placed(folder)},
        "selfie-jitter": jittered["fine-tuned"]
        | {"placed": _placed(experiment.folder("selfie-jitter", seed))},
        "guessing": {"placed": 1 / masked_patches(compose.load(folder).method)},
    }


def _accuracies(
    experiment: Experiment, name: str, seed: int, baseline: bool = False
) -> dict[str, dict[str, float]]:
    """Accuracy at each share of the labels: fine-tuned and, as a baseline, from scratch."""
    labels = ",".join(map(str, SHARES.values()))
    overrides = [f"labels=[{labels}]", f"seeds=[{seed}]", f"baseline={str(baseline).lower()}"]
    overrides += cast(Size, experiment.budget).finetune
    file = experiment.evaluate(experiment.folder(name, seed), "finetune", *overrides)
    return {
        how: {
            f"at_{percent}": file["finetuned"][f"{how} on {percent} % of the labels"]["top1"]
            for percent in SHARES
        }
        for how in ("fine-tuned", "from scratch")[: 1 + baseline]
    }


def _placed(folder: Path) -> float:
    """Share of masked patches placed correctly in the last rows of the log."""
    logged = [share for share in records.read(folder)["accuracy"] if share is not None][-LAST:]
    return sum(logged) / len(logged)


def draw(path: Path, rows: Rows) -> None:
    """Accuracy by the share of the labels, with bands of one standard deviation over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    by_name: Mapping[str, Mapping] = {row["name"]: row for row in rows}
    shares: Sequence[int] = list(SHARES)
    for name, colour in SHADES.items():
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


def claims() -> Iterator[Claim]:
    for name, title in (("selfie", "Selfie"), ("selfie-jitter", "Selfie, colours jittered,")):
        for percent in SHARES:
            text = f"{title} over supervised at {percent} % of the labels"
            yield Claim(text, name, "supervised", f"at_{percent}")
        yield Claim(f"{title} places patches better than guessing", name, "guessing", "placed")


PAPER = Paper(
    name="selfie",
    title="Selfie, fine-tuned, against the same network from scratch",
    budgets=BUDGETS,
    trainings=trainings,
    measure=measure,
    columns={**{f"at_{percent}": f"at {percent} %" for percent in SHARES}, "placed": "placed"},
    claims=tuple(claims()),
    plot=draw,
)

main = partial(run, PAPER)


if __name__ == "__main__":
    run_command(main)
