"""The page of gpu_day, its targets, and what tests and benchmarks write for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from patchmill.benchmarks.lib import printing
from patchmill.benchmarks.lib.gpu_day import outcomes, page, targets
from patchmill.benchmarks.lib.gpu_day.record import Entry
from patchmill.benchmarks.lib.gpu_day.step import Step
from patchmill.benchmarks.lib.gpu_day.steps import ROOT, STEPS

BY_NAME = {step.name: step for step in STEPS}


def test_figures_are_shown_with_their_targets(tmp_path: Path) -> None:
    stages = [
        {"stage": "resize", "floor_share": 0.09, "us": 1100},
        {"stage": "all launches", "floor_share": 0.44, "us": 1500},
    ]
    rows = [
        {"name": "cached batches", "images_per_s": 5200.0, "of_ceiling": 1.0, "wait": 0.001},
        {"name": "patchmill", "images_per_s": 800.4, "of_ceiling": 0.9, "wait": 0.123},
    ]
    (tmp_path / "renderer-time.json").write_text(json.dumps({"stages": stages}))
    (tmp_path / "training-vit.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "dali-rate.json").write_text("{broken")
    names = ("renderer-time", "training-vit", "dali-rate", "training-moco")
    entries = {name: Entry("held") for name in names}
    about = {"gpu": "Some GPU", "cores": 16, "minutes": 13, "date": "2026-01-01"}
    text = page.page(STEPS, entries, about, tmp_path)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    found = {tuple(row[1:]) for row in cells if len(row) == 4}
    assert ("44%", "at least 40%", "reached") in found
    assert ("9%", "", "") in found
    assert ("800", "at least 871", "MISSED") in found
    assert ("90%", "at least 95%", "MISSED") in found
    assert ("12.3%", "", "") in found and ("5,200", "", "") in found
    assert ("not measured", "at most 10%", "") in found
    rehearsed = {name: Entry("held", rehearsed=True) for name in names}
    text = page.page(STEPS, rehearsed, about, tmp_path)
    assert "Rehearsed on a CPU" in text and "44%" not in text


def test_figures_are_of_steps_that_write_them() -> None:
    for figure in targets.FIGURES:
        assert BY_NAME[figure.step].writes == "json"
    assert page.page(STEPS, {}, {"cores": 1, "minutes": 1, "date": ""}, Path("nowhere"))


def test_outcomes_are_written_by_every_share_of_the_tests(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert 1 == 2\n"
        "@pytest.mark.skip(reason='needs more')\n"
        "def test_c(): pass\n"
    )
    (tmp_path / "test_none.py").write_text("import no_such_module\n")
    file = tmp_path / "out.jsonl"
    arguments = Step("some", "", (), 1, processes=2, writes="tests").command(tmp_path, 2)
    environment = {
        **os.environ,
        outcomes.FILE: str(file),
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        [sys.executable, *arguments, str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 1
    found = {each["test"].rpartition("::")[2]: each for each in outcomes.read(file)}
    assert {name: each["outcome"] for name, each in found.items()} == {
        "test_a": "passed",
        "test_b": "failed",
        "test_c": "skipped",
        "test_none.py": "failed",
    }
    assert found["test_b"]["reason"] == "assert 1 == 2"
    assert found["test_c"]["reason"] == "needs more"
    assert "no_such_module" in found["test_none.py"]["reason"]


def test_reports_are_printed_without_rich(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rich", "rich.console", "rich.table"):
        monkeypatch.setitem(sys.modules, name, None)
    table = printing.new_table("stage", "µs", "share")
    table.add_row("resize", "[bold]1,100[/]", "9%")
    table.add_row("all launches", "1", "44%")
    printing.console().print(table)
    printing.console().print("in [brackets], kept", style="dim", markup=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "stage            µs  share",
        "resize        1,100     9%",
        "all launches      1    44%",
    ]
    assert lines[3] == "in [brackets], kept"


def test_a_rehearsal_of_tests_finds_what_cannot_work_anywhere(tmp_path: Path) -> None:
    """With "cuda" meaning the CPU, other outcomes are not failures, and other cases are skipped."""
    (tmp_path / "test_some.py").write_text(
        "import pytest, torch\n"
        "from torch import cuda\n"
        "def test_fine():\n"
        "    a = torch.ones(3, device='cuda').cuda().to('cuda', torch.float16)\n"
        "    cuda.synchronize()\n"
        "    assert a.to(torch.device('cuda', 0)).sum() == 3 and cuda.is_available()\n"
        "    with cuda.stream(cuda.Stream()) as stream:\n"
        "        cuda.Event().record()\n"
        "@pytest.mark.parametrize('case', [1, 2])\n"
        "def test_typo(case): torch.ones(3, device='cuda').summ()\n"
        "def test_other(): assert torch.ones(3, device='cuda').is_cuda\n"
        "def test_raises():\n"
        "    with pytest.raises(ValueError): torch.ones(3)\n"
    )
    file = tmp_path / "out.jsonl"
    arguments = replace(BY_NAME["kernels-parity"], arguments=()).command(tmp_path, 1, rehearse=True)
    environment = {**os.environ, outcomes.FILE: str(file), "PYTHONPATH": str(ROOT)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, *arguments, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    found = {each["test"].rpartition("::")[2]: each for each in outcomes.read(file)}
    assert {name: each["outcome"] for name, each in found.items()} == {
        "test_fine": "passed",
        "test_typo[1]": "failed",
        "test_other": "skipped",
        "test_raises": "skipped",
    }, done.stdout
    assert "has no attribute 'summ'" in found["test_typo[1]"]["reason"]
    assert found["test_other"]["reason"].startswith("another outcome on a CPU: AssertionError")
