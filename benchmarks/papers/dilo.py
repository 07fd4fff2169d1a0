"""DiLo against MoCo when backgrounds change, by the source of the masks.

    python benchmarks/papers/dilo.py [--budget cpu] [--json FILE] [--plot FILE] [key=value ...]

The paper (Zhao et al. 2021): in some views the foreground, found by a saliency method, is pasted on
another background. Features then depend less on backgrounds; most saliency methods improve on
MoCo, and better masks improve it more.

Here both learn from synthetic scenes whose backgrounds reveal the class in nine of ten images, with
the same settings except for the views. Every class has its own colours: a small network learns no
shapes in half a minute, and the question is where it looks. Masks are the scenes' own; those of GS,
MC and RBD, as in the paper; those of a small U2-Net trained on exact masks of other scenes, but on
no class labels (the paper's networks learn from DUTS); and as controls, for which no gain is
expected, exact masks of other images ("random"), and the same moved to random places ("shifted").
The frozen h is scored by kNN and by ridge regression. Their training images are the biased ones
too, and the test images show the same objects

    as in training      on backgrounds as in training
    random              on any class's background
    swapped             on the background of the next class
    foreground alone    on plain grey
    Mixed-Same          cut out and pasted on another scene's background, of the own class's kind
    Mixed-Rand          pasted in the same way on one of a kind drawn at random

The last two are ImageNet-9's (Xiao et al. 2020): cutting out affects both alike, and their
difference, the BG-gap, is the reliance on backgrounds. ImageNet-9 fills the places of foregrounds
with tiles of the rest; here the backgrounds are painted without objects.

--budget paper is a ResNet-50 on ImageNet for 200 epochs, and reads masks made beforehand:

    patchmill masks DIR/train --method rbd --out imagenet-rbd.masks
    patchmill masks DIR/train --method "learned(weights='FILE')" --out imagenet-learned.masks
    patchmill masks DIR/val --method rbd

The last ones are for its test images. It has no Mixed columns: ImageNet-9 is a separate download.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from patchmill.benchmarks.lib import floors
from patchmill.benchmarks.lib.papers import Budget, Claim, Experiment, Paper, Rows, chart, run
from patchmill.benchmarks.lib.seeds import Figures
from patchmill.benchmarks.saliency import f_measure
from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import run_command
from patchmill.loaders.common.threads import available_cores, map_in_threads
from patchmill.loaders.copypaste import mask_file, masks
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.files import cache
from patchmill.loaders.files.writing import atomic_path
from patchmill.loaders.prepare import make_masks
from patchmill.loaders.prepare.options import MaskOptions
from patchmill.loaders.saliency.resample import resize
from patchmill.loaders.sources import Source, open_source
from patchmill.loaders.sources.scenes.scene import SceneSettings, make_scene
from patchmill.loaders.sources.scenes.source import Scenes
from patchmill.training import data
from patchmill.training.config import compose
from patchmill.training.config.recipes import evaluation_recipe
from patchmill.training.config.settings import Config
from patchmill.training.evaluation import knn, online, reliance, single_view, trained_run
from patchmill.training.evaluation.features import Features, extract
from patchmill.training.evaluation.reliance import ALONE, SAME, SWAPPED, TestSet
from patchmill.training.evaluation.scores import cached
from patchmill.training.ranks import distributed
from patchmill.training.runtime import run_folder

UNTRAINED, MOCO, DILO = "untrained", "moco", "dilo"
ESTIMATED, CONTROLS = ("gs", "mc", "rbd", "learned"), ("random", "shifted")  # kinds of masks

KINDS = {"same": SAME, "swapped": SWAPPED, "alone": ALONE}  # of `evaluate=reliance`, by column
MIXED = ("mixed_same", "mixed_rand")
METRICS = ("knn", "linear")
TITLES = {
    "same": "as trained",
    "drawn": "random",
    "swapped": "swapped",
    "alone": "alone",
    "mixed_same": "M-Same",
    "mixed_rand": "M-Rand",
    "gap": "BG-gap",
}
COLUMNS = {
    f"{column}_{metric}": f"{title}, {metric}"
    for metric in METRICS
    for column, title in TITLES.items()
} | {"masks_f": "F of masks"}
DRAWN = {f"{column}_linear": TITLES[column] for column in ("drawn", "swapped", "alone", "gap")}

U2NET = dict(steps=150, batch=8, size=64, seed=0)  # of the learned masks
OTHER_SCENES = 10_000  # added to a seed: scenes on which no run is trained or tested
BACKGROUNDS = 1000  # to paste on
JUDGED_MASKS = 500
HISTOGRAMS = ("histogram", "centre_histogram")

# Views that keep colours, with matching settings: the demos' views change hues much more
SEEN = "(size=${size}, scale=(0.4, 1.0))"
VIEWS = {MOCO: f"method.views=moco_v2{SEEN}", DILO: f"method.views=dilo{SEEN}"}
LEARNING = (
    "method.queue=256",
    "method.momentum=0.99",
    "method.temperature=0.2",
    "method.symmetric=false",
    "optim.lr=0.0015",
    "train.log_every=7",
)

BUDGETS = {
    "cpu": Budget(
        (
            "data=biased_scenes",
            "data.train=scenes(count=4000,size=64,background_bias=0.9,colour_bias=1.0)",
            "data.test=scenes(count=2000,seed=1,size=64,colour_bias=1.0)",
            "scale=demo",
            "train.precision=bf16",
            "train.channels_last=true",  # also a third faster in bf16 on CPUs
            "train.epochs=6",
            "evaluate.knn_every=0",
            *LEARNING,
        ),
        tests=2000,
    ),
    "gpu": Budget(
        (
            "data=biased_scenes",
            "data.train=scenes(count=20000,size=128,background_bias=0.9,colour_bias=1.0)",
            "data.test=scenes(count=2000,seed=1,size=128,colour_bias=1.0)",
            "scale=demo",
            "size=96",
            "model=resnet18",
            "train.precision=bf16",
            "train.epochs=20",
            "train.batch_size=256",
            "evaluate.knn_every=0",
            *LEARNING,
        ),
        tests=2000,
    ),
    "paper": Budget(("data=imagenet", "scale=paper"), seeds=1),
}


def name_of(masks_by: str) -> str:
    """Name of DiLo's runs with a method's masks."""
    return f"{DILO}_{masks_by}"


CLAIMS = tuple(
    claim
    for metric in METRICS
    for claim in (
        Claim(f"random, {metric}: dilo over moco", DILO, MOCO, f"drawn_{metric}"),
        Claim(f"swapped, {metric}: dilo over moco", DILO, MOCO, f"swapped_{metric}"),
        Claim(f"foreground alone, {metric}: dilo over moco", DILO, MOCO, f"alone_{metric}"),
        Claim(f"Mixed-Rand, {metric}: dilo over moco", DILO, MOCO, f"mixed_rand_{metric}"),
        Claim(f"BG-gap, {metric}: smaller for dilo than for moco", MOCO, DILO, f"gap_{metric}"),
        *(
            Claim(f"{kind}, {metric}: {name} over moco", name, MOCO, f"{column}_{metric}")
            for name in map(name_of, ESTIMATED)
            for column, kind in (("swapped", SWAPPED), ("alone", ALONE))
        ),
        *(
            Claim(
                f"{kind}, {metric}: {name} brings no gain over moco",
                name,
                MOCO,
                f"{column}_{metric}",
                equal=True,
            )
            for name in map(name_of, CONTROLS)
            for column, kind in (("swapped", SWAPPED), ("alone", ALONE))
        ),
    )
)


def trainings(budget: Budget, seed: int) -> dict[str, list[str]]:
    if budget.tests is None:  # ImageNet, which has no masks of its own
        files = {name: f"imagenet-{name}.masks" for name in ("rbd", "learned")}
        moco, dilo = ["method=moco"], ["method=dilo"]
        own: dict[str, list[str]] = {}
    else:
        files = {name: str(mask_path(budget, name)) for name in (*ESTIMATED, *CONTROLS)}
        moco, dilo = ([f"method={name}", VIEWS[name]] for name in (MOCO, DILO))
        own = {DILO: dilo}
    pasted = {name_of(name): [*dilo, f"data.masks={path}"] for name, path in files.items()}
    return {MOCO: moco, **own, **pasted}


# ----------------------------------------------------------------------------------- masks to train


def mask_path(budget: Budget, masks_by: str) -> Path:
    """Path of the mask file of a budget's training images."""
    data = " ".join(one for one in budget.overrides if one.startswith("data"))
    return cache.root() / "paper-masks" / f"{masks_by}-{digest(data)}.masks"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def prepare(experiment: Experiment) -> None:
    """Make the missing mask files of the trainings."""
    if experiment.budget.tests is None:
        return  # the user's
    folder = cache.folder("paper-masks")
    train = compose.compose(experiment.trainings(0)[MOCO]).data.train
    source = open_source(train)
    for masks_by in (*ESTIMATED, *CONTROLS):
        path = mask_path(experiment.budget, masks_by)
        if path.exists() and mask_file.MaskFile(path).meta["source"] == source.fingerprint:
            continue
        path.unlink(missing_ok=True)
        if masks_by in CONTROLS:
            write_shuffled(source, path, anywhere=masks_by == "shifted")
        else:
            method = masks_by if masks_by != "learned" else learned(train, folder)
            make_masks.make(source, path, MaskOptions(method), available_cores())


def learned(train: str, folder: Path) -> str:
    """A saliency method: the small U2-Net, trained on other scenes of the same kind as `train`."""
    from patchmill.loaders.saliency import train as u2net

    scenes = reliance.scene_settings(train) or {}
    others = {**scenes, "count": 1024, "background_bias": 0.0}
    others["seed"] = scenes.get("seed", 0) + OTHER_SCENES
    settings = u2net.Settings(calls.text("scenes", others), **U2NET)
    weights = folder / f"u2net-{digest(repr(settings))}.safetensors"
    if not weights.exists():
        u2net.train(settings, weights, "cuda" if torch.cuda.is_available() else "cpu")
    return f"learned(weights={str(weights)!r}, size={settings.size})"


def write_shuffled(source: Source, path: Path, anywhere: bool = False, seed: int = 0) -> None:
    """Write the masks of a source so that each belongs to another image.

    With `anywhere` each is also shifted by a random offset, wrapping around the image's edges:
    objects are near the centre, and so are their masks.
    """
    opened, count = masks.source_masks(source), len(source)
    assert opened is not None, f"{source.name} has no masks"
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    other = np.empty(count, np.int64)
    other[order] = np.roll(order, 1)  # one cycle: no image keeps its own
    offsets = rng.random((count, 2)) if anywhere else np.zeros((count, 2))

    def rows() -> Iterator[mask_file.MaskRow]:
        for index, offset in zip(other.tolist(), offsets, strict=True):
            found = opened.lookup(index)
            if found.plane is None:
                yield mask_file.missing_row(found.why)
            else:
                shift = (offset * found.plane.shape).astype(int).tolist()
                plane = np.ascontiguousarray(np.roll(found.plane, shift, axis=(0, 1)))
                yield mask_file.mask_row(plane, found.foreground, 1.0, found.why)

    meta = {"source": source.fingerprint, "samples": count, "estimator": None, "made_by": "shuffle"}
    mask_file.write_mask_file(path, rows, count, meta)


# ----------------------------------------------------------------------------- images to test on


def mixed_tests(folder: Path, test: str) -> dict[str, str]:
    """Data strings of the Mixed images by column; made from scenes and kept in a folder."""
    made = {}
    for column in MIXED:
        path = folder / f"{column}-{digest(test + open_source(test).fingerprint)}.zip"
        if not path.exists():
            write_mixed(test, column == MIXED[0], path)
        made[column] = str(path)
    return made


def write_mixed(test: str, same: bool, path: Path) -> None:
    """Write a zip of PNGs by class: foregrounds of scenes pasted on painted backgrounds.

    The background is one of the kind that belongs to the class or, without `same`, of any kind.
    """
    source: Any = open_source(test)
    behind = painted_backgrounds(test)
    rng = np.random.default_rng(len(source))
    drawn = rng.integers(len(behind), size=len(source)), rng.random(len(source))
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as file:
        for index, label in enumerate(source.labels.tolist()):
            kind = label if same else int(drawn[0][index])
            pool = behind[kind]
            background = pool[int(drawn[1][index] * len(pool))]
            image, mask = decode(source.read(index)), source.mask(index)[..., None] > 0
            pasted = np.where(mask, image, resize(background, *image.shape[:2]))
            png = io.BytesIO()
            Image.fromarray(pasted).save(png, "png")
            file.writestr(f"{source.classes[label]}/{index:06}.png", png.getvalue())


def painted_backgrounds(test: str) -> list[list[np.ndarray]]:
    """Backgrounds without objects, uint8 [height, width, 3], by kind."""
    scenes = reliance.scene_settings(test) or {}
    defaults = {k: p.default for k, p in inspect.signature(Scenes).parameters.items()}
    values = {**defaults, **scenes, "background_bias": 0.0, "objects": (0, 0)}
    values["seed"] += OTHER_SCENES
    settings = SceneSettings(**{field.name: values[field.name] for field in fields(SceneSettings)})
    painted: list[list[np.ndarray]] = [[] for _ in range(settings.classes)]
    for scene in map_in_threads(
        partial(make_scene, settings), range(BACKGROUNDS), available_cores()
    ):
        painted[scene.background].append(decode(scene.jpeg))
    return painted


# ----------------------------------------------------------------------------------------- figures


def measure(experiment: Experiment, seed: int) -> dict[str, Figures]:
    folders = {name: experiment.folder(name, seed) for name in experiment.trainings(seed)}
    blank = experiment.untrained(UNTRAINED, seed, folders[MOCO])
    rows = {
        name: figures(experiment, folder) for name, folder in {UNTRAINED: blank, **folders}.items()
    }
    if experiment.budget.tests is None:
        return rows
    quality = mask_quality(experiment)
    rows |= {name: {**rows[name], "masks_f": f} for name, f in quality.items()}
    return histogram_floors(experiment, folders[MOCO]) | rows


def histogram_floors(experiment: Experiment, folder: Path) -> dict[str, Figures]:
    """Accuracies of colour histograms, without a network, if the test images are scenes."""
    config = compose.load(folder)
    config.data.test = experiment.test_data(folder)
    found: dict[str, dict[str, float]] = {name: {} for name in HISTOGRAMS}
    kinds = reliance.variants(config)
    tests = {column: kinds[KINDS[column]].data for column in ("same", "swapped")}
    for column, test in {**tests, "drawn": str(config.data.test)}.items():
        key = json.dumps([config.data.train, test, config.evaluate.k])
        score = partial(floors.knn_accuracies, config.data.train, test, config.evaluate.k)
        accuracies = cached(experiment.out / "floors.json", key, score)
        for name in HISTOGRAMS:
            found[name][f"{column}_knn"] = accuracies[name]
    return {name.replace("_", " "): row for name, row in found.items()}


def mask_quality(experiment: Experiment) -> dict[str, float]:
    """F-measure of each DiLo run's masks against the scenes' own, by run."""
    train = compose.compose(experiment.trainings(0)[MOCO]).data.train
    source: Any = open_source(train)
    found = {DILO: 1.0}
    for masks_by in (*ESTIMATED, *CONTROLS):
        opened = masks.open_mask_file(mask_path(experiment.budget, masks_by), source)
        planes = ((opened.plane(index), source.mask(index)) for index in range(JUDGED_MASKS))
        scores = [
            f_measure(resize(plane[..., None], *own.shape)[..., 0], own > 0)
            for plane, own in planes
            if plane is not None
        ]
        found[name_of(masks_by)] = float(np.mean(scores))
    return found


def figures(experiment: Experiment, folder: Path) -> Figures:
    """Accuracies on every kind of test image, by kNN and by a linear classifier."""
    config = compose.load(folder)
    config.data.test = experiment.test_data(folder)
    tests = test_sets(experiment, config)
    key = json.dumps([run_folder.read_status(folder).get("step"), [t.data for t in tests.values()]])
    return cached(folder / "papers.json", key, lambda: _figures(folder, config, tests))


def test_sets(experiment: Experiment, config: Config) -> dict[str, TestSet]:
    kinds = reliance.variants(config)
    tests = {column: kinds[kind] for column, kind in KINDS.items()}
    same = tests["same"].data
    if reliance.scene_settings(same) is not None:
        view = evaluation_recipe(config)
        tests["drawn"] = TestSet(str(config.data.test), view)
        for column, data in mixed_tests(experiment.out, same).items():
            tests[column] = TestSet(data, view)
    return tests


def _figures(folder: Path, config: Config, tests: Mapping[str, TestSet]) -> dict[str, float]:
    trained = trained_run.load(folder, config, distributed.connect(config.train.device))
    network, evaluate = trained.network("h"), config.evaluate

    def features(test: TestSet) -> Features:
        settings = replace(config, data=replace(config.data, test=test.data))
        loader = data.open_evaluation(settings, trained.world, "test", test.recipe)
        return extract(network, loader, None, trained.amp)

    bank = single_view.features(trained, network, "train", evaluate.images)
    rows = {column: features(test) for column, test in tests.items()}
    linear = online.linear_accuracies(bank, rows)
    found = {f"{column}_linear": accuracy for column, accuracy in linear.items()}
    for column, tested in rows.items():
        found[f"{column}_knn"] = knn.accuracy(bank, tested, evaluate.k, evaluate.temperature)
    if MIXED[0] in rows:
        for metric in METRICS:
            same, rand = (found[f"{column}_{metric}"] for column in MIXED)
            found[f"gap_{metric}"] = same - rand
    return found


def draw(path: Path, rows: Rows) -> None:
    networks = [row for row in rows if set(DRAWN) & set(row)]
    title = "Ridge regression on h, trained on biased scenes; a small BG-gap is good"
    chart.draw(path, networks, DRAWN, title)


PAPER = Paper(
    name="dilo",
    title="DiLo against MoCo as backgrounds change",
    budgets=BUDGETS,
    trainings=trainings,
    prepare=prepare,
    measure=measure,
    columns=COLUMNS,
    claims=CLAIMS,
    plot=draw,
)


main = partial(run, PAPER)


if __name__ == "__main__":
    run_command(main)
