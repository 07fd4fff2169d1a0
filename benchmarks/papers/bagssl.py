"""BagSSL: an image as the bag of its patches (Chen, Bardes, Li, LeCun 2022, arXiv 2206.08954).

    python benchmarks/papers/bagssl.py [--budget cpu|gpu|paper] [--json FILE] [--plot FILE] [...]

The paper claims that joint-embedding methods learn embeddings of patches: a network trained only on
patches of one scale is as good as one trained on random resized crops, once the embeddings of many
patches are averaged; averaging also helps the other network; h keeps more of a patch's location
than z; and the mean over many patches approaches the embedding of the whole image.

Two networks differ only in their views: patches of a fifth of the image, or random resized crops of
8 to 100 %. Both, and the untrained network, embed images as the whole, as the whole enlarged to the
patches' magnification, and as the mean over 1 to 16 (64 on a GPU) random patches of a fifth, in h
and in z.

At --budget cpu two more networks test the reasons: one is trained on patches of half the image, and
both it and the one trained on crops are also evaluated by means over such patches; the other is
trained on patches of a fifth with a quarter of the colour changes.

Accuracies are those of kNN and of a linear probe on these embeddings; `told` is kNN's on scenes
whose backgrounds reveal the class, which shows how much an embedding encodes the background. `own`
and `others` are cosines of the mean over patches with the whole of its own and of other images;
`closer` is (own - others) / (1 - others), and `found` the share of images whose own whole is the
nearest of 256. `place` measures whether the nearest patches of other images have the same location
as a patch (1: always, 0: at chance), `same` the share of the nearest patches of all images that are
from its own image.

--budget cpu: synthetic scenes of 64 pixels, timm's smallest ResNet, SimCLR's objective with its
strong colour changes (patches of a scene share colours that are independent of its class), half a
minute of training; gpu: CIFAR-10 (data.root=DIR), a ResNet-18, TCR, 20 epochs; paper: ImageNet
(data.root=DIR), 32-pixel patches, a ResNet-50 and VICReg, as far as the recipe is known. The paper
has four objectives: method.objective=tcr, vicreg, simclr or byol.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib.papers import Budget, Claim, Experiment, Paper, Rows, run
from patchmill.benchmarks.lib.seeds import Figures
from patchmill.loaders.common.errors import run_command

MEAN = 16  # patches, at all budgets
AREA = "area=0.2"  # of a patch, for networks that were not trained on patches of one scale
PATCHES, MULTI, UNTRAINED = "patch-trained", "multi-scale", "untrained"
HALVES, MULTI_HALVES = "trained on halves", "multi-scale, halves"
FAINT = "patch-trained, faint changes of colour"
VIEWS = {"central": "whole image", "enlarged": "enlarged image"}
SPACES = ("h", "z")

SCENES, CIFAR, PHOTOS = "data=scenes", "data=cifar10", "data=imagenet"
# Views of the networks trained on patches and on crops, beyond the method's own
VIEWS_OF = {
    SCENES: (
        ("method.views=bagssl(patches=2, size=32, scale=0.2, strength=1.0)",),
        ("method.views=simclr(size=32, blur=0.0)",),
    ),
    CIFAR: ((), ("method.views=moco_v2(size=32, scale=(0.08, 1.0), blur=0.0, cifar=True)",)),
    PHOTOS: ((), ("method.views=vicreg(size=224)", "model.stem=imagenet")),
}
CONTROLS = {
    "halves": "method.views=bagssl(patches=2, size=32, scale=0.5, strength=1.0)",
    "faint": "method.views=bagssl(patches=2, size=32, scale=0.2, strength=0.25)",
}
BUDGETS = {
    "cpu": Budget(
        (
            SCENES,
            "scale=demo",
            "method.objective=simclr",
            "data.train=scenes(count=2000, size=64)",
            "data.test=scenes(count=1000, seed=1, size=64)",
            "train.epochs=8",
            "train.precision=bf16",
            "train.channels_last=true",  # also a third faster in bf16 on CPUs
            "evaluate.knn_every=0",
        ),
        seeds=6,
        tests=1000,
    ),
    "gpu": Budget((CIFAR, "model=resnet18", "train.epochs=20", "evaluate.knn_every=0"), seeds=1),
    "paper": Budget((PHOTOS,), seeds=1),
}
COUNTS = {SCENES: (1, 4, 16), CIFAR: (1, 4, 16, 64), PHOTOS: (1, 4, 16, 64)}
# Training images of kNN and probes, by data set; all of ImageNet's
IMAGES = {SCENES: 1000, CIFAR: 10_000}
TOLD = 500  # training and as many test scenes whose backgrounds reveal their classes


def trainings(budget: Budget, seed: int) -> dict[str, list[str]]:
    patches, crops = VIEWS_OF[_data(budget)]
    overrides = {"patches": patches, "multi": crops}
    if _data(budget) == SCENES:
        overrides |= {name: (views,) for name, views in CONTROLS.items()}
    return {name: ["method=bagssl", *views] for name, views in overrides.items()}


def _data(budget: Budget) -> str:
    return next(override for override in budget.overrides if override in VIEWS_OF)


def measure(experiment: Experiment, seed: int) -> dict[str, Figures]:
    patches, multi = (experiment.folder(name, seed) for name in ("patches", "multi"))
    blank = experiment.untrained("untrained", seed, like=patches)
    networks: list[tuple[str, Path, tuple[str, ...]]] = [
        (UNTRAINED, blank, ()),
        (PATCHES, patches, ()),
        (MULTI, multi, (AREA,)),
    ]
    on_scenes, main_networks = _data(experiment.budget) == SCENES, len(networks)
    if on_scenes:
        halves, faint = (experiment.folder(name, seed) for name in CONTROLS)
        networks += [
            (HALVES, halves, ()),
            (MULTI_HALVES, multi, ("area=0.5",)),
            (FAINT, faint, ()),
        ]
    rows: dict[str, Figures] = {}
    for number, (name, folder, area) in enumerate(networks):
        found = experiment.evaluate(folder, "patches", *_overrides(experiment), *area)
        rows |= dict(figures(name, found))
        if on_scenes and number < main_networks:
            told = experiment.evaluate(folder, "patches", *_told(), *area)
            for space, scores in told["columns"][f"{MEAN} patches"].items():
                row = name_of(name, f"{MEAN} patches", space)
                rows[row] = {**rows[row], "told": scores["knn"]}
    return rows


def _overrides(experiment: Experiment) -> list[str]:
    data = _data(experiment.budget)
    counts = ",".join(map(str, COUNTS[data]))
    limits = [f"images={IMAGES[data]}"] if data in IMAGES else []
    return [
        *(f"counts=[{counts}]", "sampling=random", "enlarged=true", "untrained=false"),
        *("curve=256", "neighbours=6", *limits),
    ]


def _told() -> Iterator[str]:
    """Overrides of an evaluation on scenes whose backgrounds reveal their classes."""
    yield from (f"counts=[{MEAN}]", "sampling=random", "probe=none", "curve=0", "neighbours=0")
    for split, seed in (("train", 0), ("test", 1)):
        yield f"data.{split}=scenes(count={TOLD}, seed={seed}, size=64, background_bias=1.0)"


def figures(network: str, found: Mapping[str, Any]) -> Iterator[tuple[str, Figures]]:
    """Rows of one network: each way to embed an image, and its patches' neighbours."""
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
        yield name_of(network, NEAR, space), row


def name_of(network: str, views: str, space: str) -> str:
    return f"{network}: {views} in {space}"


# ----------------------------------------------------------------------------------- the claims


def _of(network: str, count: int | str, space: str = "h") -> str:
    views = count if isinstance(count, str) else "1 patch" if count == 1 else f"{count} patches"
    return name_of(network, views, space)


WHOLE = VIEWS["central"]
NEAR = "neighbours"
CLAIMS = (
    Claim("Patch-trained: 16 patches over 1, linear", _of(PATCHES, 16), _of(PATCHES, 1), "linear"),
    Claim("Patch-trained: 16 patches over 1, kNN", _of(PATCHES, 16), _of(PATCHES, 1), "knn"),
    Claim("Multi-scale: 16 patches over 1, linear", _of(MULTI, 16), _of(MULTI, 1), "linear"),
    Claim(
        "Multi-scale: 16 patches over the whole image, linear",
        _of(MULTI, 16),
        _of(MULTI, WHOLE),
        "linear",
    ),
    Claim(
        "16 patches, patch-trained, over the whole image, multi-scale, linear",
        _of(PATCHES, 16),
        _of(MULTI, WHOLE),
        "linear",
    ),
    Claim(
        "16 patches: patch-trained over multi-scale, linear",
        _of(PATCHES, 16),
        _of(MULTI, 16),
        "linear",
    ),
    Claim(
        "16 patches: patch-trained over untrained, linear",
        _of(PATCHES, 16),
        _of(UNTRAINED, 16),
        "linear",
    ),
    Claim("Untrained: 16 patches over 1, linear", _of(UNTRAINED, 16), _of(UNTRAINED, 1), "linear"),
    Claim(
        "16 patches, patch-trained: h over z, linear",
        _of(PATCHES, 16),
        _of(PATCHES, 16, "z"),
        "linear",
    ),
    Claim(
        "16 patches, multi-scale: h over z, linear",
        _of(MULTI, 16),
        _of(MULTI, 16, "z"),
        "linear",
    ),
    Claim(
        "Multi-scale: 16 patches are nearer to their own whole image than to others",
        _of(MULTI, 16),
        _of(MULTI, 16),
        "own",
        "others",
    ),
    Claim(
        "Multi-scale: 16 patches are closer to their whole image than 1",
        _of(MULTI, 16),
        _of(MULTI, 1),
        "closer",
    ),
    Claim(
        "16 patches are closer to their whole image: multi-scale over untrained",
        _of(MULTI, 16),
        _of(UNTRAINED, 16),
        "closer",
    ),
    Claim(
        "16 patches find their whole image: multi-scale over untrained",
        _of(MULTI, 16),
        _of(UNTRAINED, 16),
        "found",
    ),
    Claim(
        "16 patches are closer to their whole image: multi-scale over patch-trained",
        _of(MULTI, 16),
        _of(PATCHES, 16),
        "closer",
    ),
    Claim(
        "Nearest patches lie in the same place: h over z, patch-trained",
        _of(PATCHES, NEAR),
        _of(PATCHES, NEAR, "z"),
        "place",
    ),
    Claim(
        "Nearest patches lie in the same place: h over z, multi-scale",
        _of(MULTI, NEAR),
        _of(MULTI, NEAR, "z"),
        "place",
    ),
    Claim(
        "Nearest patches are of the same image: z over h, patch-trained",
        _of(PATCHES, NEAR, "z"),
        _of(PATCHES, NEAR),
        "same",
    ),
    Claim(
        "16 patches, patch-trained, kNN: backgrounds that tell the class over those that do not",
        _of(PATCHES, MEAN),
        _of(PATCHES, MEAN),
        "told",
        "knn",
    ),
    Claim(
        "16 halves: trained on them over multi-scale, linear",
        _of(HALVES, 16),
        _of(MULTI_HALVES, 16),
        "linear",
    ),
    Claim(
        "16 halves, trained on them, over the whole image, multi-scale, linear",
        _of(HALVES, 16),
        _of(MULTI, WHOLE),
        "linear",
    ),
    Claim(
        "16 patches: trained on halves over trained on fifths, linear",
        _of(HALVES, 16),
        _of(PATCHES, 16),
        "linear",
    ),
    Claim(
        "Nearest patches are of the same image: z over h, faint changes of colour",
        _of(FAINT, NEAR, "z"),
        _of(FAINT, NEAR),
        "same",
    ),
    Claim(
        "Nearest patches in z are of the same image: faint over strong changes of colour",
        _of(FAINT, NEAR, "z"),
        _of(PATCHES, NEAR, "z"),
        "same",
    ),
)


# -------------------------------------------------------------------------------------- the chart

COLOURS = {PATCHES: "#2a6f97", MULTI: "#c8783c", UNTRAINED: "#a0a0a0"}


def draw(path: Path, rows: Rows) -> None:
    """Accuracy, and similarity to the whole image, by the number of patches."""
    from matplotlib.figure import Figure

    by_name = {row["name"]: row for row in rows}
    counts = [count for count in (1, 4, 16, 64) if _of(PATCHES, count) in by_name]
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
        axes.set_xticks(counts, list(map(str, counts)))
        axes.minorticks_off()
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
    counts = [count for count in (1, 4, 16, 64) if _of(network, count, space) in rows]
    points = [rows[_of(network, count, space)] for count in counts]
    means = [100 * row[column] for row in points]
    spread = [100 * row.get(f"{column}_std", 0.0) for row in points]
    axes.plot(counts, means, style, color=colour, label=label, marker="o", markersize=3)
    low, high = zip(*((m - s, m + s) for m, s in zip(means, spread, strict=True)), strict=True)
    axes.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)


PAPER = Paper(
    name="bagssl",
    title="BagSSL: images as means over patches, of networks trained on patches or on crops",
    budgets=BUDGETS,
    trainings=trainings,
    measure=measure,
    columns={
        "knn": "kNN",
        "linear": "linear",
        "told": "kNN, told",
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

main = partial(run, PAPER)


if __name__ == "__main__":
    run_command(main)
