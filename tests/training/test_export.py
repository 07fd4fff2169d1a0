"""python training/export.py: files it writes, what it prints, and mistakes in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import helpers_runs
import helpers_trained
import pytest
import torch
from helpers_exports import images, loaded_features
from safetensors.torch import load_file

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import IMAGENET_MEAN
from patchmill.training import export
from patchmill.training.config import compose
from patchmill.training.config.recipes import training_recipe
from patchmill.training.evaluation import trained_run
from patchmill.training.exports.registry import LIBRARIES
from patchmill.training.ranks.distributed import World


def run_folder(out: Path, state: str = "done", **overrides: str) -> Path:
    base = {"model__name": "resnet10t", "model__stem": "imagenet"}
    return helpers_trained.write(helpers_runs.config(out, **{**base, **overrides}), state=state)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of moco with the views of its CIFAR demo."""
    views = "moco_v2(size=16, cifar=True)"
    return run_folder(tmp_path_factory.mktemp("runs"), method__views=views)


def printed_lines(text: str) -> list[str]:
    """The lines of Python in what export.py printed."""
    return [line.removeprefix("  ") for line in text.split("load it by\n")[1].splitlines()]


def test_help_lists_libraries_and_settings(capsys: pytest.CaptureFixture[str]):
    export.main(["--help"])
    text = capsys.readouterr().out
    for name, library in LIBRARIES.items():
        assert f"to={name}" in text and library.title in text
    for key in ("run", "to", "out", "checkpoint", "encoder", "unfinished", "force"):
        assert f"\n  {key} " in text


def test_the_printed_lines_load_the_network_that_is_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = run_folder(tmp_path, model__name="resnet18")
    export.main([f"run={folder}", "to=torchvision"])
    text = capsys.readouterr().out
    out = folder / "exports" / "torchvision"
    assert text.startswith(f"written to {out}: model.pth, config.json\n")
    assert "resnet18, the student of moco after step 3 on views of 16 x 16" in text
    run = trained_run.load(folder, trained_run.load_config(folder), World())
    with torch.no_grad():
        expected = run.network().eval()(images())
    h = loaded_features(printed_lines(text), images())
    torch.testing.assert_close(h, expected, rtol=1e-5, atol=1e-5)


def test_the_teacher_is_another_network(finished: Path, tmp_path: Path):
    method = trained_run.load(finished, trained_run.load_config(finished), World()).method
    for encoder in ("student", "teacher"):
        out = tmp_path / encoder
        export.main([f"run={finished}", "to=safetensors", f"out={out}", f"encoder={encoder}"])
        weights, expected = load_file(out / "model.safetensors"), method.encoder(encoder)
        assert all(torch.equal(weights[k], v) for k, v in expected.state_dict().items())
        assert json.loads((out / "config.json").read_text())["encoder"] == encoder
    student, teacher = (method.encoder(which).bn1.running_mean for which in ("student", "teacher"))
    assert not torch.equal(student, teacher)


def test_facts_about_the_run(finished: Path, tmp_path: Path):
    export.main([f"run={finished}", "to=safetensors", f"out={tmp_path}"])
    facts = json.loads((tmp_path / "config.json").read_text())
    expected = {"architecture": "resnet10t", "method": "moco", "step": 3, "size": 16}
    assert expected.items() <= facts.items() and facts["num_features"] == 512
    (views,) = training_recipe(trained_run.load_config(finished)).views
    assert facts["mean"] == list(views.mean) and facts["std"] == list(views.std)
    assert facts["mean"] != list(IMAGENET_MEAN)


def test_an_export_is_overwritten_on_demand_alone(finished: Path, tmp_path: Path):
    out = tmp_path / "out"
    argv = [f"run={finished}", "to=safetensors", f"out={out}"]
    export.main(argv)
    (out / "config.json").write_text("mine")
    with pytest.raises(MillError, match=r"model.safetensors exists: .* with force=true"):
        export.main(argv)
    assert (out / "config.json").read_text() == "mine"
    export.main([*argv, "force=true"])
    assert json.loads((out / "config.json").read_text())["step"] == 3
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}


def test_a_file_in_the_place_of_the_folder_is_an_error(finished: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(MillError, match=r"cannot write to .*file"):
            export.main([f"run={finished}", "to=safetensors", f"out={out}"])


MISTAKES = {
    "to=tim": r"there is no to=tim; did you mean 'timm'\?",
    "to=": "say which library to export to, as to=timm; there are: timm, torchvision, hf",
    "encoder=both": r"encoder must be auto \| student \| teacher, not 'both'",
    "ckeckpoint=best": r"there is no setting 'ckeckpoint'; did you mean 'checkpoint'\?",
    "checkpoint=best": "has no best checkpoint yet",
    "checkpoint=gone.pt": "there is no checkpoint gone.pt",
    "force=perhaps": "force must be true or false",
    "timm": "cannot read 'timm': write key=value",
    "run=none": "there is no run none: name a run's folder",
    "run=": "say which run to export, as run=runs/NAME",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_mistakes_are_one_sentence(word: str, finished: Path):
    with pytest.raises(MillError, match=MISTAKES[word]) as caught:
        export.main([f"run={finished}", "to=timm", word])
    assert "\n" not in str(caught.value)


def test_an_architecture_that_the_library_has_not(finished: Path):
    expected = "torchvision cannot load this resnet10t: .* try to=timm or to=safetensors"
    with pytest.raises(MillError, match=expected):
        export.main([f"run={finished}", "to=torchvision"])
    assert not (finished / "exports").exists()


def test_a_method_without_a_teacher(tmp_path: Path):
    base = {k: v for k, v in helpers_runs.OVERRIDES.items() if k not in helpers_trained.MOCO}
    given = {"method": "simclr", "method.views": "simclr(size=16)", "model.name": "resnet10t"}
    overrides = [f"{k}={v}" for k, v in {**base, **given, "out": tmp_path}.items()]
    folder = helpers_trained.write(compose.compose(overrides))
    with pytest.raises(MillError, match="SimCLR has no teacher"):
        export.main([f"run={folder}", "to=timm", "encoder=teacher"])


def test_an_unfinished_run_needs_unfinished_true(tmp_path: Path):
    folder = run_folder(tmp_path, state="stopped")
    with pytest.raises(MillError, match=r"is not finished \(step 3 of 4\): .* unfinished=true"):
        export.main([f"run={folder}", "to=safetensors"])
    export.main([f"run={folder}", "to=safetensors", "unfinished=true"])
    assert (folder / "exports" / "safetensors" / "config.json").exists()


def test_as_a_script(tmp_path: Path):
    argv = [f"run={tmp_path / 'none'}", "to=timm"]
    done = subprocess.run([sys.executable, export.__file__, *argv], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no run") and done.stderr.count("\n") == 1
