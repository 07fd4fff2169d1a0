"""gpu_day: commands that parse, steps that cannot stop each other, resuming, and the page."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patchmill.benchmarks import gpu_day, throughput, training
from patchmill.benchmarks.lib import printing
from patchmill.benchmarks.lib.gpu_day import day as days
from patchmill.benchmarks.lib.gpu_day import here, outcomes, page, process, record, targets
from patchmill.benchmarks.lib.gpu_day.day import Day
from patchmill.benchmarks.lib.gpu_day.here import BASE, Here
from patchmill.benchmarks.lib.gpu_day.images import RepeatedScenes
from patchmill.benchmarks.lib.gpu_day.record import Entry
from patchmill.benchmarks.lib.gpu_day.steps import NAMES, ROOT, STEPS, Step
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose

BY_NAME = {step.name: step for step in STEPS}
SELECTING = [step.name for step in STEPS if step.writes == "tests"]
BARE = {"torch", "triton", "numpy", "numba", "pytest"}
ON_BARE = ["facts", "renderer-parity", "renderer-time", "kernels-parity", "kernels-time"]
# What no step of a bare machine may need.
HIDDEN = "nvidia.dali,ffcv,webdataset,submitit,hydra,omegaconf,xdist,pytest_timeout,simplejpeg"
MORE_HIDDEN = f"{HIDDEN},rich,hypothesis,scipy,PIL,yaml,torchvision,timm,tensorboard,safetensors"


# -------------------------------------------------------------------------- commands of the steps


@pytest.mark.parametrize("rehearse", [False, True])
@pytest.mark.parametrize("name", [s.name for s in STEPS if s.words[0].startswith("benchmarks/")])
def test_benchmarks_take_the_words_of_their_steps(
    name: str, rehearse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    script, *words = BY_NAME[name].command(tmp_path, 16, rehearse)
    assert (ROOT / script).is_file()
    benchmark: Any = importlib.import_module(f"patchmill.benchmarks.{Path(script).stem}")
    if benchmark is training:
        options = training._options(words)
        config = compose.compose(options.words)
        assert (config.train.device == "cpu") == rehearse
        assert (config.train.batch_size, config.size) == ((4, 32) if rehearse else (256, 224))
    else:
        options = benchmark._settings(words)
        assert torch.device(options.device).type == ("cpu" if rehearse else "cuda")
        if benchmark is throughput:
            assert (options.workers, bool(options.peers)) == (
                (1, False) if rehearse else (16, name == "peers")
            )
    assert options.json == str(tmp_path / f"{name}.json")


@pytest.mark.parametrize("name", ["facts", "images"])
def test_modules_of_steps_are_there(name: str) -> None:
    assert importlib.util.find_spec(BY_NAME[name].words[1])


@pytest.mark.parametrize(
    ("hidden", "names"),
    [
        (MORE_HIDDEN, ["renderer-parity", "kernels-parity"]),
        ("", [n for n in SELECTING if n not in ("renderer-parity", "kernels-parity")]),
    ],
    ids=["bare", "whole"],
)
def test_every_step_of_tests_selects_some(hidden: str, names: list[str]) -> None:
    """On a bare machine those of the kernels do, with pytest and nothing else."""
    names = [name for name in names if not Here("a GPU").lacks(BY_NAME[name])]
    program = Path(__file__).with_name("helpers_gpu_day.py")
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, str(program), hidden, *names]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == names
    for name in names:
        assert found[name]["problems"] == []
        assert found[name]["count"] > 1, name


def test_the_renderer_is_timed_on_a_bare_machine(tmp_path: Path) -> None:
    """Everything that it imports is there, and its table is printed without rich."""
    out = tmp_path / "out.json"
    words = ["views", "--device", "cpu", "--batch-size", "1", "--rounds", "1", "--json", str(out)]
    folders = [str(ROOT), str(Path(__file__).parent)]
    code = (
        f"import sys; sys.path[:0] = {folders!r}; import helpers_gpu_day as helper;"
        f"sys.meta_path.insert(0, helper.Hidden(set({MORE_HIDDEN!r}.split(','))));"
        f"from patchmill.benchmarks import kernels; kernels.main({words!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["stages"]
    assert "resize" in done.stdout


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


# -------------------------------------------------------------------------------------------- plan


def test_estimates_follow_from_the_variants_and_the_cores() -> None:
    step = Step("one", "", (), seconds=10, variants=100, processes=8)
    alone, shared = step.estimate(1), step.estimate(64)
    assert alone - 10 == pytest.approx(8 * (shared - 10))
    assert step.command(Path("out"), 16)[0] != "-m"
    tests = replace(step, writes="tests")
    assert tests.command(Path("out"), 16)[2] == "8" and tests.command(Path("out"), 2)[2] == "2"


def test_the_plan_leaves_out_what_no_longer_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "look", lambda: Here(""))
    gpu_day.main(["--dry-run", "--cores", "16", "--minutes", "4"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert set(NAMES) <= set(lines)
    assert " min" in lines["facts"] and "not reached" in lines["kernels-parity"]
    gpu_day.main(["--dry-run", "--cores", "16", "--part", "kernels-time,facts", "--part", "stress"])
    shown = capsys.readouterr().out
    assert [name for name in NAMES if f"\n{name} " in shown] == ["facts", "kernels-time", "stress"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--part", "renderer-tim"], "there is no step 'renderer-tim'; did you mean"),
        (["--minutes", "0"], "--minutes must be above 0, not 0"),
        (["--faster"], "unrecognized arguments: --faster"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(MillError, match=sentence):
        gpu_day.main(words)


# ------------------------------------------------------------------------------------ made-up steps


def step(name: str, code: str, seconds: float = 1, **more: Any) -> Step:
    return Step(name, f"{name} it", ("-c", code), seconds, gpu=False, **{"writes": "", **more})


JSON = "import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text('{\"rows\": []}')"
GOOD, BROKEN = step("good", "print('fine')"), step("broken", "raise OSError('no luck')")
LOST = step("lost", "pass", under=("no-such-program", "--strict"))
FIGURES = step("figures", JSON, writes="json")
SILENT = step("silent", "pass", writes="json")


def made(tmp_path: Path, *steps: Step, minutes: float = 13.0) -> Day:
    machine = Here("", 2, has_program=lambda name: True)
    return Day(steps, machine, tmp_path, minutes)


def run(day: Day, entries: dict[str, Entry] | None = None, **more: Any) -> dict[str, Entry]:
    entries = {} if entries is None else entries
    assert days.run(day, entries, lambda text: None, **more)
    assert record.read(day.out) == entries
    return entries


def test_no_step_stops_the_next(tmp_path: Path) -> None:
    found = run(made(tmp_path, BROKEN, LOST, SILENT, FIGURES, GOOD))
    states = {name: entry.state for name, entry in found.items()}
    assert states == {
        "broken": "failed",
        "lost": "failed",
        "silent": "failed",
        "figures": "held",
        "good": "held",
    }
    assert found["broken"].why == "exit status 1: OSError: no luck"
    assert found["lost"].why.startswith("cannot be started: ")
    assert found["silent"].why == "it ended without a result"
    assert (tmp_path / "good.log").read_text().endswith("fine\n")


def test_what_a_machine_lacks_is_left_out(tmp_path: Path) -> None:
    found = run(made(tmp_path, replace(GOOD, gpu=True), replace(BROKEN, needs=("no_module",))))
    assert {entry.state for entry in found.values()} == {"left out"}
    assert found["good"].why == "torch finds no CUDA device"
    assert found["broken"].why == "not installed: no_module"


def test_minutes_are_kept(tmp_path: Path) -> None:
    """By a clock that goes on 70 s with each look at it."""
    clock = iter(range(0, 10**6, 70))
    steps = [step(f"step{n}", "pass", seconds=60) for n in range(4)]
    found = run(made(tmp_path, *steps, minutes=4), now=lambda: next(clock))
    assert [entry.state for entry in found.values()] == ["held"] * 2 + ["not reached"] * 2
    assert found["step2"].why == "takes about 60 s, and 25 s were left"
    assert found["step0"].limit == 150 and found["step1"].limit == 95  # of what is left


SLOW = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("asked to end", flush=True)
    {then}
"""


@pytest.mark.parametrize("then", ["raise", "time.sleep(600)"], ids=["obeys", "goes on"])
def test_a_step_beyond_its_limit_is_ended_with_all_it_has_started(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.5)
    log, command = tmp_path / "log", [sys.executable, "-c", SLOW.format(then=then)]
    ended = process.run(command, os.environ, tmp_path, log, limit=1.5)
    assert not ended.in_time and ended.status
    lines = log.read_text().splitlines()
    pid = int(next(line for line in lines if line.isdigit()))
    assert "asked to end" in lines
    for _ in range(100):  # it was ended, which may take a busy machine a moment
        if alive(pid):
            time.sleep(0.1)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_tests_that_ran_before_the_limit_are_counted(tmp_path: Path) -> None:
    tests = step("tests", "", writes="tests")
    rows = [{"test": "a.py::b", "outcome": "passed", "seconds": 1, "reason": ""}] * 3
    rows.append({"test": "x/a.py::c", "outcome": "failed", "seconds": 1, "reason": "off by 9"})
    lines = "\n".join(map(json.dumps, rows))
    tests.result(tmp_path).write_text(f'{lines}\n{{"test": "cut o')
    entry = record.judge(tests, process.Ended(-2, 61.0, False), tmp_path, 60, 30)
    assert (entry.state, entry.why) == ("out of time", "stopped after 61 s; 1 failed, 3 passed")
    assert entry.failures == ["a.py::c: off by 9"]
    entry = record.judge(tests, process.Ended(1, 9.0, True), tmp_path, 60, 30)
    assert (entry.state, entry.why) == ("failed", "1 failed, 3 passed")


def test_ctrl_c_ends_at_once_and_resuming_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = step("slow", "import time; time.sleep(600)")
    day, entries = made(tmp_path, GOOD, slow, FIGURES), dict[str, Entry]()
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    run(made(tmp_path, GOOD), entries)
    timer.start()
    assert not days.run(day, entries, lambda text: None)
    states = [entries[name].state for name in ("good", "slow", "figures")]
    assert states == ["held", "interrupted", "not reached"]
    assert record.read(tmp_path) == entries
    again, ran = record.read(tmp_path), list[str]()
    quick = made(tmp_path, GOOD, step("slow", "pass"), FIGURES)
    assert days.run(quick, again, ran.append)
    assert [line.split()[1] for line in ran if line.startswith("running")] == ["slow", "figures"]
    assert {entry.state for entry in again.values()} == {"held"}


def test_a_rehearsal_is_no_run(tmp_path: Path) -> None:
    """A run that goes on after it runs everything."""
    gpu = replace(GOOD, gpu=True)
    rehearsed = run(replace(made(tmp_path, gpu), rehearse=True))
    assert rehearsed["good"].state == "held" and rehearsed["good"].rehearsed
    assert run(made(tmp_path, gpu), rehearsed)["good"].state == "left out"


def test_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / record.FILE).write_text("{")
    with pytest.raises(MillError, match="remove it to start anew"):
        record.read(tmp_path)


# ------------------------------------------------------------------------------- the whole command


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    steps = (GOOD, replace(FIGURES, gpu=True), BROKEN)
    monkeypatch.setattr(gpu_day, "STEPS", steps)
    monkeypatch.setattr(gpu_day, "NAMES", [each.name for each in steps])
    monkeypatch.setattr(here, "look", lambda: Here("", 2))
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.usefixtures("few_steps")
def test_a_run_without_a_gpu_ends_with_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_day.main(["--out", str(tmp_path / "day")])
    text = (tmp_path / "day" / page.FILE).read_text()
    assert text in capsys.readouterr().out
    held, _, rest = text.partition("## What did not")
    failed, _, missing = rest.partition("## What was not reached, or left out")
    assert "**good**" in held.partition("## What held")[2]
    assert "**broken**" in failed and "OSError: no luck" in failed and "broken.log" in failed
    assert "**figures** (figures it): torch finds no CUDA device" in missing
    monkeypatch.setattr(here, "look", lambda: Here("Some GPU", 2))
    gpu_day.main(["--out", str(tmp_path / "day"), "--part", "figures"])
    text = (tmp_path / "day" / page.FILE).read_text()
    assert "Some GPU" in text and "torch finds no CUDA" not in text
    assert all(f"**{name}**" in text for name in ("good", "figures", "broken"))


@pytest.mark.usefixtures("few_steps")
def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "run", interrupt)
    with pytest.raises(MillError, match=r"gpu_day\.py --resume --out \S+ --minutes 13$"):
        gpu_day.main(["--out", str(tmp_path / "day")])
    assert "interrupted" in (tmp_path / "day" / page.FILE).read_text()


# -------------------------------------------------------------------------------------- the page


def test_figures_stand_beside_their_targets(tmp_path: Path) -> None:
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
    words = replace(GOOD, writes="tests", processes=2).command(tmp_path, 2)[:-2]
    environment = {
        **os.environ,
        outcomes.FILE: str(file),
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        [sys.executable, *words, str(tmp_path)], env=environment, cwd=tmp_path, capture_output=True
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
    """With "cuda" for the CPU; another outcome there is no failure, and other cases are left."""
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
    words = replace(BY_NAME["kernels-parity"], words=()).command(tmp_path, 1, rehearse=True)
    environment = {**os.environ, outcomes.FILE: str(file), "PYTHONPATH": str(ROOT)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, *words, str(tmp_path)]
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
