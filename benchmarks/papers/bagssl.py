"""BagSSL: an image as the bag of its patches (Chen, Bardes, Li, LeCun 2022, arXiv 2206.08954).

    python benchmarks/papers/bagssl.py [--budget cpu|gpu|paper] [--json FILE] [--plot FILE] [...]

The paper says that joint-embedding methods learn embeddings of patches: a network that has seen
patches of one scale alone is as good as one trained on random resized crops, once the embeddings of
many patches are averaged; averaging helps the other network, too; h keeps more of where a patch is
from than z; and the mean over many patches approaches the embedding of the whole image.

Two networks differ in their views alone: patches of a fifth of the image, or random resized crops
of 8 to 100 %. Both, and the untrained network, embed images as the whole, as the whole enlarged to
the patches' magnification, and as the mean over 1 to 64 random patches of a fifth, in h and in z.
Accuracies are kNN's and a linear probe's on these. `own` and `others` are cosines of the mean over
patches with the whole of its own and of other images; `closer` is (own - others) / (1 - others),
and `found` the share of images whose own whole is the nearest of 256. `place` says whether the
nearest patches of other images lie where a patch lies (1: always, 0: as by chance), `same` which
share of the nearest patches of all are of its own image.

--budget cpu: made-up scenes of 64 pixels, a ResNet-10, one objective (TCR), minutes of training;
gpu: CIFAR-10 (data.root=DIR), a ResNet-18, 20 epochs; paper: ImageNet (data.root=DIR), 32-pixel
patches, a ResNet-50 and VICReg, as far as the recipe is known. The paper has four objectives:
method.objective=vicreg, simclr or byol.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib.papers import Budget, Claim, Experiment, Paper, Rows, run
from patchmill.benchmarks.lib.seeds import Figures
from patchmill.loaders.common.errors import run_command

COUNTS = (1, 4, 16, 64)
AREA = "area=0.2"  # of a patch for networks that were not trained on patches of one scale
PATCHES, MULTI, UNTRAINED = "patch-trained", "multi-scale", "untrained"
VIEWS = {"central": "whole image", "enlarged": "enlarged image"}
SPACES = ("h", "z")

PHOTOS = "data=imagenet"
SMALL = ("method.views=moco_v2(size=32, scale=(0.08, 1.0), blur=0.0, cifar=True)",)
LARGE = ("method.views=vicreg(size=224)", "model.stem=imagenet")
BUDGETS = {
    "cpu": Budget(
        (
            "data=scenes",
            "scale=demo",
            "method.objective=tcr",
            "data.train=scenes(count=2000, size=64)",
            "data.test=scenes(count=1000, seed=1, size=64)",
            "train.epochs=16",
            "train.precision=bf16",
            "train.channels_last=true",  # a third faster in bf16 on CPUs, too
            "evaluate.knn_every=0",
        ),
        tests=1000,
    ),
    "gpu": Budget(
        ("data=cifar10", "model=resnet18", "train.epochs=20", "evaluate.knn_every=0"), seeds=1
    ),
    "paper": Budget((PHOTOS,), seeds=1),
}
# Training images that kNN and probes learn from, by the data; all of ImageNet's
IMAGES = {"data=scenes": 1000, "data=cifar10": 10_000}


def trainings(budget: Budget, seed: int) -> dict[str, list[str]]:
    crops = LARGE if PHOTOS in budget.words else SMALL
    return {"patches": ["method=bagssl"], "multi": ["method=bagssl", *crops]}


def measure(experiment: Experiment, seed: int) -> dict[str, Figures]:
    patches, multi = (experiment.folder(name, seed) for name in ("patches", "multi"))
    blank = experiment.untrained("untrained", seed, like=patches)
    rows: dict[str, Figures] = {}
    for name, folder, area in (
        (UNTRAINED, blank, ()),
        (PATCHES, patches, ()),
        (MULTI, multi, (AREA,)),
    ):
        found = experiment.evaluate(folder, "patches", *_words(experiment), *area)
        rows |= dict(figures(name, found))
    return rows


def _words(experiment: Experiment) -> list[str]:
    counts = ",".join(map(str, COUNTS))
    limits = [f"images={IMAGES[word]}" for word in experiment.budget.words if word in IMAGES]
    return [
        *(f"counts=[{counts}]", "sampling=random", "enlarged=true", "untrained=false"),
        *("curve=256", "neighbours=6", *limits),
    ]


def figures(network: str, found: Mapping[str, Any]) -> Iterator[tuple[str, Figures]]:
    """Rows of one network: each way of embedding an image, and its patches' neighbours."""
    curve = found["curve"]
    for view, spaces in found["columns"].items():
        for space, scores in spaces.items():
            row = {"knn": scores["knn"], "linear": scores["linear"]}
            count = int(view.split()[0]) if "patch" in view else None
            if count in curve["patches"]:
                at = curve["patches"].index(count)
                own, others, found_at = (
                    curve[f"{space}_{name}"][at] for name in ("to_central", "to_others", "found")
                )
                row |= {"own": own, "others": others, "found": found_at}
                row["closer"] = (own - others) / (1 - others)
            yield name_of(network, VIEWS.get(view, view), space), row
    for space, scores in found["locality"].items():
        row = {"place": scores["place"], "same": scores["own"]}
        yield name_of(network, "neighbours", space), row


def name_of(network: str, views: str, space: str) -> str:
    return f"{network}: {views} in {space}"


# ----------------------------------------------------------------------------------- the claims


def _of(network: str, count: int | str, space: str = "h") -> str:
    views = count if isinstance(count, str) else "1 patch" if count == 1 else f"{count} patches"
    return name_of(network, views, space)


WHOLE = VIEWS["central"]
CLAIMS = (
    Claim("Patch-trained: 64 patches over 1, linear", _of(PATCHES, 64), _of(PATCHES, 1), "linear"),
    Claim("Patch-trained: 64 patches over 1, kNN", _of(PATCHES, 64), _of(PATCHES, 1), "knn"),
    Claim(
        "Patch-trained: 64 patches over 16, linear", _of(PATCHES, 64), _of(PATCHES, 16), "linear"
    ),
    Claim("Multi-scale: 64 patches over 1, linear", _of(MULTI, 64), _of(MULTI, 1), "linear"),
    Claim(
        "Multi-scale: 64 patches over the whole image, linear",
        _of(MULTI, 64),
        _of(MULTI, WHOLE),
        "linear",
    ),
    Claim(
        "64 patches, patch-trained, over the whole image, multi-scale, linear",
        _of(PATCHES, 64),
        _of(MULTI, WHOLE),
        "linear",
    ),
    Claim(
        "64 patches, patch-trained, over those of multi-scale, linear",
        _of(PATCHES, 64),
        _of(MULTI, 64),
        "linear",
    ),
    Claim(
        "64 patches, patch-trained, over those of the untrained, linear",
        _of(PATCHES, 64),
        _of(UNTRAINED, 64),
        "linear",
    ),
    Claim(
        "Patch-trained, 64 patches: h over z, linear",
        _of(PATCHES, 64),
        _of(PATCHES, 64, "z"),
        "linear",
    ),
    Claim(
        "Patch-trained, 64 patches: h over z, kNN", _of(PATCHES, 64), _of(PATCHES, 64, "z"), "knn"
    ),
    Claim(
        "Multi-scale: 64 patches are nearer to their own whole image than to others",
        _of(MULTI, 64),
        _of(MULTI, 64),
        "own",
        "others",
    ),
    Claim(
        "Multi-scale: 64 patches are closer to their whole image than 1",
        _of(MULTI, 64),
        _of(MULTI, 1),
        "closer",
    ),
    Claim(
        "64 patches are closer to their whole image, multi-scale, than untrained",
        _of(MULTI, 64),
        _of(UNTRAINED, 64),
        "closer",
    ),
    Claim(
        "64 patches are closer to their whole image, multi-scale, than patch-trained",
        _of(MULTI, 64),
        _of(PATCHES, 64),
        "closer",
    ),
    Claim(
        "Patch-trained: nearest patches keep their place in h more than in z",
        _of(PATCHES, "neighbours"),
        _of(PATCHES, "neighbours", "z"),
        "place",
    ),
    Claim(
        "Patch-trained: nearest patches are of the same image in z more than in h",
        _of(PATCHES, "neighbours", "z"),
        _of(PATCHES, "neighbours"),
        "same",
    ),
)


# -------------------------------------------------------------------------------------- the chart

COLOURS = {PATCHES: "#2a6f97", MULTI: "#c8783c", UNTRAINED: "#a0a0a0"}


def draw(path: Path, rows: Rows) -> None:
    """Accuracy, and likeness to the whole image, by the number of patches."""
    from matplotlib.figure import Figure

    by_name = {row["name"]: row for row in rows}
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    accuracy, likeness, nearest = figure.subplots(1, 3)
    for network, colour in COLOURS.items():
        for space, style in (("h", "-"), ("z", ":")):
            label = f"{network}, {space}"
            if f"{network}: 1 patch in {space}" in by_name:
                _line(accuracy, by_name, network, space, "linear", colour, style, label)
                _line(likeness, by_name, network, space, "closer", colour, style, label)
                _line(nearest, by_name, network, space, "found", colour, style, label)
        whole = by_name[name_of(network, WHOLE, "h")]
        accuracy.axhline(100 * whole["linear"], color=colour, linestyle="--", linewidth=0.8)
    accuracy.set_title("linear probe (dashes: whole image, h)", loc="left", fontsize=9)
    likeness.set_title("mean of patches: closer to the whole image", loc="left", fontsize=9)
    nearest.set_title("own whole image is the nearest of 256", loc="left", fontsize=9)
    for axes in (accuracy, likeness, nearest):
        axes.set_xscale("log", base=4)
        axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
        axes.set_xlabel("patches")
        axes.spines[["top", "right"]].set_visible(False)
    accuracy.set_ylabel("%")
    nearest.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=100)


def _line(
    axes: Any,
    rows: Mapping[str, Mapping[str, Any]],
    network: str,
    space: str,
    column: str,
    colour: str,
    style: str,
    label: str,
) -> None:
    points = [rows[_of(network, count, space)] for count in COUNTS]
    means = [100 * row[column] for row in points]
    spread = [100 * row.get(f"{column}_std", 0.0) for row in points]
    axes.plot(COUNTS, means, style, color=colour, label=label, marker="o", markersize=3)
    low, high = zip(*((m - s, m + s) for m, s in zip(means, spread, strict=True)), strict=True)
    axes.fill_between(COUNTS, low, high, color=colour, alpha=0.15, linewidth=0)


PAPER = Paper(
    name="bagssl",
    title="BagSSL: images as means over patches, of networks trained on patches or on crops",
    budgets=BUDGETS,
    trainings=trainings,
    measure=measure,
    columns={
        "knn": "kNN",
        "linear": "linear",
        "own": "own",
        "others": "others",
        "closer": "closer",
        "found": "found",
        "place": "place",
        "same": "same",
    },
    claims=CLAIMS,
    plot=draw,
)


def main(words: Sequence[str] | None = None) -> None:
    run(PAPER, words)


if __name__ == "__main__":
    run_command(main)
