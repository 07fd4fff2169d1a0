"""BagSSL's and EMP-SSL's experiments: settings compose, and every claim finds its rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from patchmill.benchmarks.lib.papers import Experiment, claims
from patchmill.benchmarks.lib.seeds import Figures
from patchmill.benchmarks.papers import bagssl, emp_ssl
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import command_line, compose
from patchmill.training.config.recipes import training_recipe
from patchmill.training.evaluation.settings import Patches


def configs(paper: Any, size: str, root: Path) -> dict[str, Any]:
    """Settings of the first seed's trainings, by name."""
    for split in ("train", "val", "test"):
        (root / split).mkdir(parents=True, exist_ok=True)
    settings = [] if "data=scenes" in paper.budgets[size].overrides else [f"data.root={root}"]
    experiment = Experiment(paper, paper.budgets[size], root, settings)
    return {name: compose.compose(overrides) for name, overrides in experiment.trainings(0).items()}


class Evaluated(Experiment):
    """An experiment without training, with fake evaluations."""

    made: ClassVar[list[tuple[str, ...]]] = []

    def untrained(self, name: str, seed: int, like: Path) -> Path:
        return self.folder(name, seed)

    def evaluate(self, folder: Path, evaluation: str, *overrides: str) -> dict[str, Any]:
        assert evaluation == "patches"
        self.made.append((folder.name, *overrides))
        command_line.parse(Patches, command_line.split(overrides))
        return result(folder.name, overrides)


def result(run: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Accuracies grow with patches; z is one percent below h."""
    texts = command_line.split(overrides)
    counts = [int(count) for count in texts["counts"].strip("[]").split(",")]
    base = 0.3 + 0.1 * ("untrained" not in run)
    accuracies = {"central": base}
    if "enlarged=true" in overrides:
        accuracies["enlarged"] = base + 0.02
    accuracies |= {f"{count} patch{'es' * (count > 1)}": base + count / 1000 for count in counts}
    table = {
        name: {
            space: {"knn": value - lower, "linear": value - lower + 0.1}
            for space, lower in (("h", 0.0), ("z", 0.01))
        }
        for name, value in accuracies.items()
    }
    curve: dict[str, list[float]] = {"patches": [float(count) for count in counts]}
    for space in "hz":
        curve[f"{space}_to_central"] = [0.5 + count / 200 for count in counts]
        curve[f"{space}_to_others"] = [0.4] * len(counts)
        curve[f"{space}_found"] = [0.2] * len(counts)
    locality = {"h": {"place": 0.3, "own": 0.1}, "z": {"place": 0.1, "own": 0.5}}
    return {"columns": table, "curve": curve, "locality": locality}


def judged(paper: Any, size: str, tmp_path: Path) -> tuple[dict[str, Figures], dict[str, Any]]:
    Evaluated.made.clear()
    experiment = Evaluated(paper, paper.budgets[size], tmp_path)
    rows = [paper.measure(experiment, seed) for seed in range(2)]
    found = [claims.judge(claim, rows) for claim in paper.claims if claims.measured(claim, rows[0])]
    return dict(rows[0]), {row["name"]: row["difference"] for row in found}


@pytest.mark.parametrize("size", ["cpu", "gpu", "paper"])
def test_bagssl_s_two_networks_differ_only_in_their_views(size: str, tmp_path: Path) -> None:
    found = configs(bagssl.PAPER, size, tmp_path)
    patches, multi = found["patches"], found["multi"]
    assert patches.method_name == multi.method_name == "bagssl"
    (of_patches,), (of_crops,) = (training_recipe(config).views for config in (patches, multi))
    assert of_crops.crop.scale == (0.08, 1.0)
    if size != "paper":
        assert of_patches.crop.scale == (0.2, 0.2)
        assert of_patches.colour == of_crops.colour
        multi.method.views = patches.method.views
        assert multi == patches
    assert ({"halves", "faint"} <= found.keys()) == (size == "cpu")
    if size == "cpu":
        (halves,), (faint,) = (training_recipe(found[name]).views for name in ("halves", "faint"))
        assert halves == replace(of_patches, crop=replace(of_patches.crop, scale=(0.5, 0.5)))
        assert faint == replace(of_patches, colour=faint.colour)


@pytest.mark.parametrize("size", ["cpu", "gpu", "paper"])
def test_bagssl_has_a_row_for_every_claim(size: str, tmp_path: Path) -> None:
    rows, differences = judged(bagssl.PAPER, size, tmp_path)
    own = rows["multi-scale: 16 patches in h"]
    assert own["closer"] == pytest.approx((0.58 - 0.4) / 0.6)
    assert ("multi-scale: 64 patches in h" in rows) == (size != "cpu")
    assert differences["Patch-trained: 16 patches over 1, linear"] == pytest.approx(0.015)
    assert differences["16 patches, patch-trained: h over z, linear"] == pytest.approx(0.01)
    whole = [overrides for overrides in Evaluated.made if "enlarged=true" in overrides]
    made = {overrides[0]: overrides for overrides in whole if "area=0.5" not in overrides}
    halves = "16 halves: trained on them over multi-scale, linear"
    assert (halves in differences) == (size == "cpu")
    assert "area=0.2" in made["multi-1"] and "area=0.2" not in made["patches-1"]
    assert ("images=1000" in made["multi-1"]) == (size == "cpu")
    told = any("background_bias=1.0" in word for overrides in Evaluated.made for word in overrides)
    assert told == (size == "cpu")
    assert ("told" in own) == (size == "cpu")


def test_bagssl_s_chart_shows_every_network(tmp_path: Path) -> None:
    rows, _ = judged(bagssl.PAPER, "cpu", tmp_path)
    bagssl.draw(tmp_path / "a.png", [{"name": name, **row} for name, row in rows.items()])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("size", ["cpu", "gpu", "paper"])
def test_emp_ssl_composes_and_has_a_row_for_every_claim(size: str, tmp_path: Path) -> None:
    found = configs(emp_ssl.PAPER, size, tmp_path)
    (views,) = training_recipe(found["patches20-epochs1"]).views
    assert views.count == 20 and found["patches2-epochs10"].train.epochs == 10
    assert found["patches20-epochs1"].optim.name == ("adamw" if size == "cpu" else "lars")
    rows, differences = judged(emp_ssl.PAPER, size, tmp_path)
    assert differences["The mean of 16 patches over 1"] == pytest.approx(0.015)
    assert differences["One epoch of 20 patches over no training"] == pytest.approx(0.1)
    emp_ssl.draw(tmp_path / "a.png", [{"name": name, **row} for name, row in rows.items()])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_cpu_budget_takes_a_part_of_every_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emp_ssl, "TAKEN", {"train": 2, "test": 1})
    for split in emp_ssl.TAKEN:
        for number, name in enumerate(("a/0", "a/1", "a/2", "a/3", "b/0", "b/1")):
            file = tmp_path / split / f"{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes([number]))
    root = f"data.root={tmp_path}"
    overrides = dict(word.split("=", 1) for word in emp_ssl.part_of_cifar("cpu", [root]))
    lines = Path(overrides["data.train"]).read_text().splitlines()
    assert lines[0] == "path,label" and [line.split(",")[1] for line in lines[1:]] == list("aabb")
    assert lines[2].startswith(f"{tmp_path}/train/a/2.jpg,")
    assert len(Path(overrides["data.test"]).read_text().splitlines()) == 3
    assert not list(emp_ssl.part_of_cifar("gpu", [root]))
    assert not list(emp_ssl.part_of_cifar("cpu", [root, "data.train=mine.csv"]))
    monkeypatch.setattr(emp_ssl, "TAKEN", {"train": 3})
    with pytest.raises(MillError, match=r"3 images of each class from .*train: unpack CIFAR-10"):
        list(emp_ssl.part_of_cifar("cpu", [root]))
