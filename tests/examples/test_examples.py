"""Every example trains, where the framework that it is for is installed."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from helpers_dino_print import UTILS
from helpers_examples import EXAMPLES, ROOT, run_python

IN_PROCESS = {
    "with_lightly": ["lightly"],
    "with_stable_pretraining": ["stable_pretraining"],
    "with_timm": ["timm"],
    "with_transformers": ["transformers", "accelerate"],
}
ELSEWHERE = {"dino_loop", "plain_ddp", "with_lightning"}  # here, and with ranks

# stable-pretraining's, which inspect the machine for seconds.
CALLBACKS = "lightning.pytorch.trainer.connectors.callback_connector._load_external_callbacks"

RUN = """
import runpy, sys, utils
utils.setup_for_distributed(True)
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(IN_PROCESS) | ELSEWHERE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", IN_PROCESS)
def test_example_trains(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in IN_PROCESS[name]:
        pytest.importorskip(package, reason=f"{package} is not installed")
    if name == "with_stable_pretraining":
        monkeypatch.setattr(CALLBACKS, lambda group: [])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert re.search(r"loss'?:? '?\d", capsys.readouterr().out)


def test_dinos_loop_trains_with_dinos_print(tmp_path: Path) -> None:
    (tmp_path / "utils.py").write_text(UTILS)
    output = run_python(["-c", RUN, str(EXAMPLES / "dino_loop.py")], tmp_path)
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", output)]
    assert len(losses) == 8 and losses[-1] < losses[0]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_the_data_wait_in_the_header_is_the_committed_one(path: Path) -> None:
    text = path.read_text()
    before, after = re.findall(r"Data wait in a step: (\d+) ms before, (\d+) ms after", text)[0]
    (host,) = re.findall(r"--hosts ([\w-]+);", text)
    rows = json.loads((ROOT / "benchmarks" / "results" / "hosts.json").read_text())["rows"]
    (row,) = [row for row in rows if row["name"] == host]
    assert (int(before), int(after)) == (round(row["before_ms"]), round(row["after_ms"]))
