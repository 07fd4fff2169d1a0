"""Completion: candidates at a cursor, and real shells that insert them."""

from __future__ import annotations

import argparse
import importlib
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import patchmill
from patchmill.command.bench import names, source
from patchmill.command.completion.options import benchmark_parser
from patchmill.command.completion.scripts import SCRIPTS
from patchmill.command.completion.settings import method_fields
from patchmill.command.completion.words import bash_replies, complete, split
from patchmill.command.table import COMMANDS
from patchmill.loaders import presets
from patchmill.loaders.common.settings import field_annotations
from patchmill.training.config import overrides
from patchmill.training.config.settings import Config
from patchmill.training.evaluation.registry import EVALUATIONS
from patchmill.training.exports.registry import LIBRARIES

ROOT = Path(patchmill.__file__).parents[1]
BREAKS = " \t\n\"'><=;|&(:"  # bash's own
PATIENCE = 60  # seconds for a shell


def texts(*words: str) -> list[str]:
    return [word.text for word in complete(words)]


# -------------------------------------------------------------------------------------------- words


def test_commands_come_first():
    assert texts("") == [*COMMANDS, "help", "--help", "--version"]
    assert texts("st") == ["status"]
    assert texts("help", "st") == ["status"]
    assert texts("help", "status", "") == texts("unknown", "") == []


@pytest.mark.parametrize("group", overrides.GROUPS)
def test_a_group_has_its_choices(group: str):
    expected = [f"{group}={choice}" for choice in overrides.choices(group)]
    assert texts("train", f"{group}=") == texts("submit", f"{group}=") == expected
    assert texts("bench", "training", f"{group}=") == expected


def test_settings_of_training():
    assert {"method=", "data=", "optim.", "seed="} <= set(texts("train", ""))
    for key in set(overrides.keys(Config)) - {"method", "method_name", "scale"}:
        assert texts("train", key) == [
            f"{other}=" for other in overrides.keys(Config) if other.startswith(key)
        ]
    assert "data=" not in texts("train", "method=moco", "data=scenes", "")
    assert texts("train", "optim.name=") == [
        "optim.name=sgd",
        "optim.name=adamw",
        "optim.name=lars",
    ]
    assert texts("train", "optim.scaled=t") == ["optim.scaled=true"]
    assert texts("train", "data.test=") == ["data.test=none"]
    assert texts("train", "data.train=") == []  # files
    assert texts("train", "--") == ["--help", "--show"]


@pytest.mark.parametrize("method", overrides.choices("method"))
def test_settings_of_a_method_are_those_of_its_class(method: str):
    from patchmill.training.config import compose
    from patchmill.training.methods import METHODS

    name = compose.compose([f"method={method}"]).method_name
    if name == method:
        assert method_fields(method) == list(field_annotations(METHODS[name].Settings))
        keys = [f"method.{field}=" for field in method_fields(method)]
        assert texts("train", f"method={method}", "method.") == keys


def test_presets():
    assert texts("preview", "photos", "--recipe", "") == list(presets.ALL)
    assert texts("preview", "photos", "--recipe=gt") == ["--recipe=gtsa"]
    assert texts("train", "method=moco", "method.views=gt") == ["method.views=gtsa"]


def test_evaluate_and_export():
    assert texts("evaluate", "evaluate=") == [f"evaluate={name}" for name in EVALUATIONS]
    for name, evaluation in EVALUATIONS.items():
        for key in field_annotations(evaluation.settings):
            assert f"{key}=" in texts("evaluate", f"evaluate={name}", key)
    assert texts("evaluate", "evaluate=segment", "head=") == ["head=fpn", "head=linear", "head=knn"]
    assert texts("evaluate", "checkpoint=b") == ["checkpoint=best"]
    assert texts("export", "to=") == [f"to={name}" for name in LIBRARIES]
    assert texts("export", "-") == ["--help"]


def test_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert texts("evaluate", "run=") == []
    for name in ("one", "two", "sweep/three"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
    (tmp_path / "runs" / "a file").touch()
    assert texts("evaluate", "run=") == ["run=runs/one", "run=runs/sweep/", "run=runs/two"]
    assert texts("evaluate", "run=ru") == texts("evaluate", "run=")
    assert texts("export", "run=runs/sweep/") == ["run=runs/sweep/three"]
    assert texts("status", "--tail", "runs/t") == ["runs/two"]
    assert texts("report", "") == ["runs/one", "runs/sweep/", "runs/two"]
    assert texts("evaluate", "run=nowhere/") == []


def test_options_and_their_values():
    assert texts("submit", "--cluster", "") == ["cpus", "slurm"]
    assert "--nodes" in texts("submit", "--") and "--tasks" not in texts("submit", "--")
    assert {"prepare", "masks", "method="} <= set(texts("submit", ""))
    assert {"--tasks", "--max-side", "--nodes"} - set(texts("submit", "masks", "--")) == {"--nodes"}
    assert texts("prepare", "--format", "") == ["shards", "beton", "decoded"]
    assert texts("prepare", "photos", "") == texts("prepare", "--max-side", "") == []  # files
    assert texts("completion", "") == list(SCRIPTS)
    assert "torchvision" in texts("bench", "--peers", "")


def test_benchmarks_and_their_options():
    assert texts("bench", "") == [*names(), "list"]
    assert texts("bench", "nothing", "--") == []
    assert texts("bench", "--pl") == texts("bench", "throughput", "--pl") == ["--plot"]


@pytest.mark.parametrize("name", ["decoders", "memory", "throughput", "training"])
def test_options_in_the_source_are_those_of_the_parser(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"patchmill.benchmarks.{name}")
    seen: list[argparse.ArgumentParser] = []

    def parse(parser: argparse.ArgumentParser, *ignored: object) -> None:
        seen.append(parser)
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", parse)
    with pytest.raises(KeyboardInterrupt):
        module.main(["--json", "x"])
    real = {option for action in seen[0]._actions for option in action.option_strings}
    from_source = benchmark_parser(source(name))
    assert real == {option for action in from_source._actions for option in action.option_strings}


def test_every_command_with_options_completes_help():
    for word in COMMANDS:
        assert "--help" in texts(word, "--h"), word


def test_words_load_nothing_heavy():
    program = """
import sys
from patchmill.command.completion.words import complete
for words in (
    [""], ["train", ""], ["train", "method="], ["train", "method=dilo", "method."],
    ["preview", "--recipe", ""], ["bench", ""], ["bench", "throughput", "--"],
    ["evaluate", "evaluate=segment", ""], ["export", "to="], ["submit", "--cluster", ""],
    ["submit", "masks", "--"], ["status", "--"],
):
    assert complete(words), words
print(*[name for name in ("torch", "numba", "numpy", "hydra", "timm") if name in sys.modules])"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout == "\n", done.stderr


# ------------------------------------------------------------------------------------------- shells


def test_lines_are_split_as_shells_do():
    assert split("patchmill ") == (["patchmill", ""], False)
    assert split("patchmill train  me") == (["patchmill", "train", "me"], False)
    assert split("patchmill preview 'my photos' --recipe 'di") == (
        ["patchmill", "preview", "my photos", "--recipe", "di"],
        True,
    )


def test_bash_gets_what_follows_its_last_break():
    assert bash_replies("patchmill train method=dil", BREAKS) == ["dilo "]
    assert bash_replies("patchmill train method=dil", " ") == ["method=dilo "]
    assert bash_replies("patchmill train opt", BREAKS) == ["optim=", "optim."]
    assert bash_replies("patchmill preview x --recipe 'gt", BREAKS) == ["gtsa"]


def test_bash_quotes_what_it_inserts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "my run").mkdir(parents=True)
    (tmp_path / "runs" / "my run" / "config.yaml").touch()
    assert bash_replies("patchmill evaluate run=", BREAKS) == ["runs/my\\ run "]


START = {
    "bash": (["--norc", "--noprofile", "-i"], 'eval "$(patchmill completion bash)"'),
    "zsh": (
        ["-f", "-i"],
        'autoload -U compinit; compinit -u -D; eval "$(patchmill completion zsh)"',
    ),
    "fish": (["--no-config", "-i"], "patchmill completion fish | source"),
}


@pytest.mark.parametrize("shell", START)
def test_a_real_shell_completes(shell: str, tmp_path: Path):
    """Keys go to an interactive shell; a stub of the command prints its arguments."""
    program = shutil.which(shell)
    if not program:
        pytest.skip(f"needs {shell}")
    stand_in = tmp_path / "bin" / "patchmill"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\ncase "$1" in __complete|completion) exec {sys.executable} -m patchmill "$@";; '
        'esac\nprintf "<%s>" got "$@"; echo\n'
    )
    stand_in.chmod(0o755)
    (tmp_path / "photos.tar").touch()
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").touch()
    arguments, start = START[shell]
    keys = [
        start,
        "patchmill tra\tmethod=dil\tdata=biased\toptim.weight_decay_\t3",
        "patchmill evaluate run=\tevaluate=seg\thead=f\t",
        "patchmill preview pho\t --recipe gt\t",
        "patchmill train data.train=pho\t",
    ]
    seen = type_into([program, *arguments], keys, tmp_path)
    expected = [
        "<got><train><method=dilo><data=biased_scenes><optim.weight_decay_end=3>",
        "<got><evaluate><run=runs/mine><evaluate=segment><head=fpn>",
        "<got><preview><photos.tar><--recipe><gtsa>",
        "<got><train><data.train=photos.tar>",
    ]
    assert [line for line in seen.split("\n") if line.startswith("<got>")] == expected, seen


def type_into(command: list[str], lines: list[str], folder: Path) -> str:
    """Type lines into a program on a terminal, and `exit`; returns what it shows."""
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PS1": "$ ",
        "TERM": "dumb",
        "HOME": str(folder),
    }
    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        os.execve(command[0], command, environment)
    shown, waiting, began = b"", [*lines, "exit"], time.monotonic()
    try:
        while time.monotonic() - began < PATIENCE:
            ready, _, _ = select.select([terminal], [], [], 0.5)
            if ready:
                try:
                    new = os.read(terminal, 4096)
                except OSError:  # the program has ended
                    break
                if not new:
                    break
                shown += new
            elif waiting:  # no more output: it waits for keys
                os.write(terminal, waiting.pop(0).encode() + b"\r")
        return shown.decode(errors="replace").replace("\r", "")
    finally:
        os.close(terminal)
        if os.waitpid(child, os.WNOHANG)[0] == 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
