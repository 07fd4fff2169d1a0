"""Steps of gpu_day: commands parse, tests exist, and bare machines run what they can."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patchmill.benchmarks import throughput, training
from patchmill.benchmarks.lib.gpu_day import here
from patchmill.benchmarks.lib.gpu_day.here import BASE, Here
from patchmill.benchmarks.lib.gpu_day.images import RepeatedScenes
from patchmill.benchmarks.lib.gpu_day.step import Step
from patchmill.benchmarks.lib.gpu_day.steps import ROOT, STEPS
from patchmill.training.config import compose

BY_NAME = {step.name: step for step in STEPS}
SELECTING = [step.name for step in STEPS if step.writes == "tests"]
BARE = {"torch", "triton", "numpy", "numba", "pytest"}
ON_BARE = ["facts", "renderer-parity", "renderer-time", "kernels-parity", "kernels-time"]
# Modules that no step of a bare machine may need.
HIDDEN = "nvidia.dali,ffcv,webdataset,submitit,hydra,omegaconf,xdist,pytest_timeout,simplejpeg"
MORE_HIDDEN = f"{HIDDEN},rich,hypothesis,scipy,PIL,yaml,torchvision,timm,tensorboard,safetensors"


@pytest.mark.parametrize("rehearse", [False, True])
@pytest.mark.parametrize(
    "name", [s.name for s in STEPS if s.arguments[0].startswith("benchmarks/")]
)
def test_benchmarks_accept_the_arguments_of_their_steps(
    name: str, rehearse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    script, *argv = BY_NAME[name].command(tmp_path, 16, rehearse)
    assert (ROOT / script).is_file()
    benchmark: Any = importlib.import_module(f"patchmill.benchmarks.{Path(script).stem}")
    if benchmark is training:
        options = training._options(argv)
        config = compose.compose(options.overrides)
        assert (config.train.device == "cpu") == rehearse
        assert (config.train.batch_size, config.size) == ((4, 32) if rehearse else (256, 224))
    else:
        options = benchmark._settings(argv)
        assert torch.device(options.device).type == ("cpu" if rehearse else "cuda")
        if benchmark is throughput:
            assert (options.workers, bool(options.peers)) == (
                (1, False) if rehearse else (16, name == "peers")
            )
    assert options.json == str(tmp_path / f"{name}.json")


@pytest.mark.parametrize("name", ["facts", "images"])
def test_modules_of_steps_exist(name: str) -> None:
    assert importlib.util.find_spec(BY_NAME[name].arguments[1])


@pytest.mark.xdist_group("gpu_day")
def test_every_step_of_tests_selects_some(found: Any) -> None:
    """On a bare machine the kernels' steps run, with pytest and nothing else."""
    names = [name for name in SELECTING if not Here("a GPU").lacks(BY_NAME[name])]
    seen = found["bare"] | found["whole"]
    assert set(names) <= set(seen) and set(found["bare"]) == {"renderer-parity", "kernels-parity"}
    for name, selected in seen.items():
        assert selected["problems"] == []
        assert selected["count"] > 1, name


@pytest.mark.xdist_group("gpu_day")
def test_the_renderer_is_timed_on_a_bare_machine(found: Any) -> None:
    """All its imports are available, and its table is printed without rich."""
    assert found["timed"]["stages"]
    assert "resize" in found["printed"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tests selected by steps, on a bare machine and here, and the renderer's times there."""
    names = [name for name in SELECTING if not Here("a GPU").lacks(BY_NAME[name])]
    bare = ["renderer-parity", "kernels-parity"]
    whole = [name for name in names if name not in bare]
    out = tmp_path_factory.mktemp("gpu_day") / "out.json"
    program = Path(__file__).with_name("helpers_gpu_day.py")
    command = [sys.executable, str(program), str(out), MORE_HIDDEN, *map(",".join, (bare, whole))]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    bare, whole = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    timed = json.loads(out.read_text())
    return {"bare": bare, "whole": whole, "timed": timed, "printed": done.stdout}


def test_a_bare_machine_runs_what_needs_no_more() -> None:
    bare = Here("a GPU", 16, has_module=BARE.__contains__, has_program=lambda name: False)
    assert [step.name for step in STEPS if not bare.lacks(step)] == [*ON_BARE, "compile"]
    assert bare.lacks(BY_NAME["training-moco"]).startswith("not installed: simplejpeg, pillow")
    assert "hydra-core" in bare.lacks(BY_NAME["training-vit"])
    assert bare.lacks(BY_NAME["sanitizer"]) == "compute-sanitizer is not on PATH"
    without = replace(bare, gpu="")
    assert [step.name for step in STEPS if not without.lacks(step)] == ["facts", "compile"]
    assert not here.has_module("no_such_module") and not here.has_module("no_such.module")
    assert all(map(here.has_module, BASE))


def test_scenes_repeat_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path))
    scenes = RepeatedScenes(count=2, times=50)
    assert len(scenes) == len(scenes.labels) == 100
    assert scenes.read(0) == scenes.read(98) != scenes.read(99)
    assert scenes.labels_of([0, 1]).tolist() == scenes.labels_of([98, 99]).tolist()


def test_estimates_follow_from_the_variants_and_the_cores() -> None:
    step = Step("one", "", (), seconds=10, variants=100, processes=8)
    alone, shared = step.estimate(1), step.estimate(64)
    assert alone - 10 == pytest.approx(8 * (shared - 10))
    assert step.command(Path("out"), 16)[0] != "-m"
    tests = replace(step, writes="tests")
    assert tests.command(Path("out"), 16)[2] == "8" and tests.command(Path("out"), 2)[2] == "2"
