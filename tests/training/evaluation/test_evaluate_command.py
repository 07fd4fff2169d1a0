"""python training/evaluate.py: files it writes, and mistakes in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import helpers_runs
import helpers_trained
import pytest
import torch
from helpers_trained import tiny  # noqa: F401  (a fixture)

from patchmill.loaders.common.errors import MillError
from patchmill.training import evaluate
from patchmill.training.evaluation import knn, linear, trained_run
from patchmill.training.evaluation.features import Features
from patchmill.training.evaluation.registry import EVALUATIONS
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import checkpoint, records

pytestmark = pytest.mark.usefixtures("tiny")


def test_help_lists_evaluations_and_their_settings(capsys: pytest.CaptureFixture[str]):
    evaluate.main(["--help"])
    text = capsys.readouterr().out
    for name, evaluation in EVALUATIONS.items():
        assert f"evaluate={name}  {evaluation.title}" in text
    for key in ("run", "unfinished", "sampling", "protocol", *evaluate.OVERRIDABLE):
        assert f"\n  {key} " in text


@pytest.mark.parametrize("space", ["h", "z"])
def test_knn_of_the_trained_and_the_untrained_network(
    space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """evaluate.py gets the accuracies that the engine recorded at the start and the end."""
    overrides = {"train__epochs": 1, "evaluate": "knn", "evaluate__space": space}
    folder = helpers_runs.train(helpers_runs.config(tmp_path, **overrides))
    start, end = records.evaluations(folder)
    evaluate.main([f"run={folder}", "evaluate=knn"])
    found = json.loads((folder / "knn.json").read_text())
    assert found["untrained"] == pytest.approx(start["knn"])
    assert found["knn"] == pytest.approx(end["knn"])
    conditions = [found[name] for name in ("k", "temperature", "space", "patches")]
    assert conditions == [20, 0.07, space, 1]
    last = records.evaluations(folder)[-1]
    assert (
        last[f"knn_{space}"] == found["knn"] and last["step"] == found["step"] == helpers_runs.EPOCH
    )
    text = capsys.readouterr().out
    assert "untrained" in text and f"written to {folder / 'knn.json'}" in text
    assert (folder / "report.html").exists()


def test_the_untrained_network_is_evaluated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, calls = helpers_trained.write(helpers_trained.settings(tmp_path)), []
    monkeypatch.setattr(knn, "accuracy", lambda *its: calls.append(its) or 0.5)
    for argv in ([], [], ["space=z"], ["evaluate.k=3"], ["evaluate.k=3"]):
        evaluate.main([f"run={folder}", *argv])
    assert len(calls) == 5 + 3


def test_a_probe_reports_each_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = helpers_trained.write(helpers_trained.settings(tmp_path))
    short = linear.PROTOCOLS["moco"]._replace(epochs=2)
    monkeypatch.setitem(linear.PROTOCOLS, "moco", short)
    evaluate.main([f"run={folder}", "evaluate=linear", "protocol=moco", "rates=[0.1,30]"])
    found = json.loads((folder / "linear.json").read_text())
    assert [it["lr"] for it in found["probes"]] == [0.1, 30] and found["protocol"] == "moco"


def test_choice_of_the_checkpoint(tmp_path: Path):
    config = helpers_trained.settings(tmp_path)
    folder = helpers_trained.write(config)
    with pytest.raises(MillError, match="has no best checkpoint yet: train it first"):
        evaluate.main([f"run={folder}", "checkpoint=best"])
    newest = checkpoint.path_at(folder, 3)
    for which in ("newest", str(newest)):
        assert trained_run.load_checkpoint(folder, which).path == newest
    loaded = trained_run.load(folder, config, World())
    begun = trained_run.untrained(config, World())
    assert not torch.equal(loaded.method.backbone.conv.weight, begun.backbone.conv.weight)
    again = trained_run.untrained(config, World())
    assert torch.equal(again.backbone.conv.weight, begun.backbone.conv.weight)


MISTAKES = {
    "evaluate=knm": r"there is no evaluate=knm; did you mean 'knn'\?",
    "space=x": r"space must be auto \| h \| z, not 'x'",
    "spase=z": r"there is no setting 'spase'; did you mean 'space'\?",
    "counts=[1]": r"there is no setting 'counts'",
    "optim.lr=3": r"there is no setting 'optim.lr'",
    "k=3": r"there is no setting 'k'; did you mean 'evaluate.k'\?",
    "unfinished=perhaps": r"unfinished must be true or false",
    "knn": r"cannot read 'knn': write key=value",
    "data.test=none": r"has no test images: name some with data.test=DIR",
    "checkpoint=gone.pt": r"there is no checkpoint gone.pt",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_mistakes_are_one_sentence(word: str, tmp_path: Path):
    folder = helpers_trained.write(helpers_trained.settings(tmp_path))
    with pytest.raises(MillError, match=MISTAKES[word]):
        evaluate.main([f"run={folder}", word])


def test_images_without_labels_are_an_error(tmp_path: Path):
    from PIL import Image

    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    folder = helpers_trained.write(helpers_trained.settings(tmp_path / "out"))
    with pytest.raises(MillError, match=r"has no labels to evaluate with"):
        evaluate.main([f"run={folder}", "evaluate=linear", f"data.test={tmp_path}"])


def test_an_unfinished_run_needs_unfinished_true(tmp_path: Path):
    folder = helpers_trained.write(helpers_trained.settings(tmp_path), state="stopped")
    expected = r"is not finished \(step 3 of 4\): run its command again, .* unfinished=true"
    with pytest.raises(MillError, match=expected):
        evaluate.main([f"run={folder}"])
    evaluate.main([f"run={folder}", "unfinished=true"])
    assert (folder / "knn.json").exists()


def test_a_missing_run_is_an_error(tmp_path: Path):
    for argv, message in (
        (["evaluate=knn"], "say which run to evaluate, as run=runs/NAME"),
        ([f"run={tmp_path / 'none'}"], "there is no run .*: name a run's folder"),
        ([f"run={tmp_path}"], "is .* the folder of a run"),
    ):
        with pytest.raises(MillError, match=message):
            evaluate.main(argv)


def test_a_method_without_a_projector_has_no_z(tmp_path: Path):
    with pytest.raises(MillError, match="space=z: Supervised has no projector"):
        trained_run.network(_supervised(tmp_path), "z")


def _supervised(out: Path):
    overrides = {"method": "supervised", "method.views": "simclr(size=16)"}
    overrides |= {
        key: value for key, value in helpers_trained.BAG.items() if key.startswith("data")
    }
    from patchmill.training.config import compose

    return trained_run.untrained(
        compose.compose([f"{k}={v}" for k, v in overrides.items()]), World()
    )


def test_as_a_script(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, evaluate.__file__, f"run={tmp_path / 'none'}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no run") and done.stderr.count("\n") == 1


def test_features_of_a_run_are_of_all_its_images(tmp_path: Path):
    from patchmill.training.evaluation import single_view

    run = helpers_trained.run(tmp_path)
    found = single_view.features(run, run.network(), "train")
    assert isinstance(found, Features) and found.ids.tolist() == list(range(14))
    assert len(single_view.features(run, run.network(), "train", 5).rows) == 5


def test_random_crops_differ_between_epochs(tmp_path: Path, monkeypatch):
    from patchmill.training.evaluation import single_view

    run = helpers_trained.run(tmp_path)
    make = single_view.random_crops(run, run.network())
    first, second = make(), make()
    assert first.ids.tolist() == second.ids.tolist() == list(range(14))
    assert torch.equal(first.labels, second.labels)
    assert not torch.isclose(first.rows, second.rows).all(1).any()
    short = linear.PROTOCOLS["vicreg"]._replace(epochs=2)
    monkeypatch.setitem(linear.PROTOCOLS, "vicreg", short)
    found = single_view.evaluate_linear(run, single_view.Linear(augment=True))
    assert "new crops in each epoch" in found.about and found.data["augment"]
    with pytest.raises(MillError, match="of all images: omit images="):
        single_view.evaluate_linear(run, single_view.Linear(augment=True, images=5))
