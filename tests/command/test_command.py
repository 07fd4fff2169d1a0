"""patchmill COMMAND: help of every command, the functions behind the commands, and mistakes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import patchmill
from patchmill import script
from patchmill.command.bench import names, source, title
from patchmill.command.main import run
from patchmill.command.table import COMMANDS
from patchmill.loaders.common.errors import MillError
from patchmill.training import run as training_run
from patchmill.training.runtime import records

ROOT = Path(patchmill.__file__).parents[1]
HEAVY = ("torch", "numba", "torchvision", "timm", "hydra", "numpy")
LOADED = f"import sys\nprint('LOADED', *[m for m in {HEAVY} if m in sys.modules])"
TINY = [
    *("method=moco", "data=scenes", "scale=demo", "data.train=scenes(count=16, size=32)"),
    *("data.test=none", "evaluate=never", "size=32", "train.epochs=1", "train.batch_size=8"),
    *("model=resnet10", "method.queue=16", "train.workers=1"),
]


def patchmill_command(
    *argv: str, python: Sequence[str] = ("-m", "patchmill"), cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, *python, *argv]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


def output(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    try:
        run(argv)
    except SystemExit as ended:
        assert not ended.code
    return capsys.readouterr().out


# --------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("argv", [[], ["help"], ["--help"], ["-h"]])
def test_overview_has_a_line_per_command(argv: list[str], capsys: pytest.CaptureFixture[str]):
    lines = output(capsys, *argv).splitlines()
    for word, command in COMMANDS.items():
        assert f"  {word:<12} {command.title}" in lines
    assert max(map(len, lines)) <= 80


def test_every_command_has_a_function():
    for command in COMMANDS.values():
        assert callable(command.load())


@pytest.mark.parametrize("word", COMMANDS)
def test_help_of_all_commands_is_in_one_style(word: str, capsys: pytest.CaptureFixture[str]):
    text = output(capsys, word, "--help")
    assert output(capsys, "help", word) == text
    usage, empty, about, *rest = text.splitlines()
    assert usage.startswith(f"usage: patchmill {word} ") and usage.endswith("[options]")
    assert empty == "" and about[0].isupper() and not about.split()[0].endswith("s")
    assert any(line.startswith("  patchmill ") for line in rest)
    assert "options:" in rest
    assert any("-h, --help " in line and "show this help message and exit" in line for line in rest)
    assert max(map(len, [usage, about])) <= 100


def test_help_loads_nothing_heavy():
    commands = [[word, "--help"] for word in COMMANDS] + [
        ["help"],
        ["bench", "list"],
        ["submit", "prepare", "-h"],
        ["submit", "masks", "-h"],
    ]
    program = f"""
import contextlib
from patchmill.command.main import run
for argv in {commands}:
    with contextlib.suppress(SystemExit):
        run(argv)
{LOADED}"""
    done = patchmill_command(python=("-c", program))
    assert done.stdout.splitlines()[-1] == "LOADED", done.stderr


@pytest.mark.parametrize("name", ["prepare", "masks"])
def test_submitted_preparation_has_its_help(name: str, capsys: pytest.CaptureFixture[str]):
    usage, *_ = output(capsys, "submit", name, "-h").splitlines()
    assert usage.startswith(f"usage: patchmill submit {name} ") and usage.endswith("[options]")


def test_version(capsys: pytest.CaptureFixture[str]):
    assert output(capsys, "--version") == f"patchmill {patchmill.__version__}\n"


# ----------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["zzz"], "there is no command 'zzz'; there are: train, evaluate,"),
        (["help", "statsu"], "there is no command 'statsu'; did you mean 'status'?"),
        (["-v"], "there is no option -v: a command comes first"),
        (["train", "--lr", "3"], "there is no option --lr: settings are written key=value"),
        (["evaluate", "evaluate=knn"], "say which run to evaluate, as run=runs/NAME"),
        (["export", "run=runs/a"], "say which library to export to"),
        (["prepare", "photos"], "the following arguments are required: OUT; --help lists"),
        (["masks"], "the following arguments are required: DATA; --help lists"),
        (["inspect", "--all"], "the following arguments are required: OUT; --help lists"),
        (["preview", "x", "--cuont", "3"], "unrecognized arguments: --cuont 3; --help lists"),
        (["preview", "x", "--count", "few"], "argument --count: invalid int value: 'few'"),
        (["status", "--taill", "x"], "unrecognized arguments: --taill; --help lists"),
        (["report"], "the following arguments are required: DIR; --help lists"),
        (["submit", "--knodes", "3"], "unrecognized arguments: --knodes"),
        (["bench", "thruput"], "there is no benchmark 'thruput'; did you mean 'throughput'?"),
    ],
)
def test_mistakes_are_one_sentence(argv: list[str], message: str):
    with pytest.raises(MillError) as caught:
        run(argv)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_mistake_is_printed_on_stderr_and_ends_with_1():
    done = patchmill_command("trian")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: there is no command 'trian'; did you mean 'train'?\n"


def test_a_wrong_word_loads_nothing_heavy():
    program = f"""
from patchmill.command.main import run
from patchmill.loaders.common.errors import MillError
try:
    run(["trian"])
except MillError:
    pass
{LOADED}"""
    assert patchmill_command(python=("-c", program)).stdout == "LOADED\n"


def test_ctrl_c_is_one_word():
    program = """
from patchmill.command.main import main
from patchmill.command.table import Command
def interrupted(argv):
    raise KeyboardInterrupt
Command.load = lambda command: interrupted
main()"""
    done = patchmill_command("status", python=("-c", program))
    assert (done.returncode, done.stderr) == (1, "interrupted\n")


# ------------------------------------------------------------------------------------- what they do


def test_train_is_the_script_of_training(capsys: pytest.CaptureFixture[str]):
    argv = ["--show", "method=moco", "data=scenes", "seed=3"]
    shown = output(capsys, "train", *argv)
    training_run.main(argv)
    assert capsys.readouterr().out == shown != ""


@pytest.mark.slow
def test_a_run_by_torchrun_is_listed_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = patchmill_command(
        "train", *TINY, "name=two", python=[*torchrun, "-m", "patchmill"], cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the run is in runs/two") == 1
    monkeypatch.chdir(tmp_path)
    assert len(records.read(Path("runs/two"))["loss"]) > 0
    assert '"state": "done"' in output(capsys, "status", "--json")
    assert output(capsys, "report", "runs/two") == "runs/two/report.html\n"


@pytest.mark.parametrize("word", ["train", "evaluate", "export"])
def test_threads_of_torch_sleep(word: str, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(
        type(COMMANDS[word]),
        "load",
        lambda command: lambda argv: seen.append(os.environ.get("OMP_WAIT_POLICY")),
    )
    run([word])
    run(["status"])
    assert seen[0] == "PASSIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")


def test_benchmarks_are_all_listed(capsys: pytest.CaptureFixture[str]):
    text = output(capsys, "bench", "list")
    root = ROOT / "benchmarks"
    files = [*root.glob("[a-z]*.py"), *(root / "papers").glob("[a-z]*.py")]
    stems = {path.relative_to(root).with_suffix("").as_posix() for path in files}
    assert {stem.replace("_", "-") for stem in stems} == set(names())
    assert [name for name in names() if not re.search(r"^(def )?main\b", source(name), re.M)] == []
    for name in names():
        assert f"  {name:<15} {title(name)}" in text and title(name)


@pytest.mark.parametrize("argv", [[], ["--seconds", "1"], ["throughput", "--seconds", "1"]])
def test_throughput_is_the_benchmark_by_default(
    argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from patchmill.benchmarks import throughput

    seen: list[Sequence[str]] = []
    monkeypatch.setattr(throughput, "main", seen.append)
    run(["bench", *argv])
    assert [list(each) for each in seen] == [argv[argv[:1] == ["throughput"] :]]


def test_results_name_the_command_as_typed():
    typed = ["/home/me/.venv/bin/patchmill", "bench", "--data", "my photos"]
    assert script.command_line(typed) == "patchmill bench --data 'my photos'"
    module = ["/x/lib/patchmill/__main__.py", "bench"]
    assert script.command_line(module) == "patchmill bench"
    by_path = ["benchmarks/throughput.py", "--json", "x"]
    assert script.command_line(by_path) == "python benchmarks/throughput.py --json x"


def test_output_that_nobody_reads_is_no_error():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        f"{sys.executable} -m patchmill train --help | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.stderr == "" and done.stdout.startswith("usage: patchmill train")
    assert signal.SIGPIPE  # a signal would have been -13
