"""The command line of submit.py: options with dashes are the job's, the other words training's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from patchmill.loaders.common.errors import MillError

HELP = """\
Queues training on SLURM, or runs it here where there is none.

  python cluster/submit.py --nodes 8 method=dilo data=imagenet data.root=/data/imagenet
  python cluster/submit.py --nodes 8 --dry-run method=dilo
  python cluster/submit.py --sweep seed=0,1,2 --sweep optim.lr=0.03,0.06 method=moco data=scenes
  python cluster/submit.py prepare SRC OUT --tasks 32       (prepare --help says more)
  python cluster/submit.py masks DATA --tasks 32

Words without dashes are settings of training: python training/run.py --help lists them. Defaults
come from training/config/cluster/ and ~/.config/patchmill/cluster.yaml."""

PREPARATION = """\
Prepares data as an array of tasks on SLURM, or here where there is none. The same command again
goes on with what is missing.

  python cluster/submit.py prepare SRC OUT --tasks 32 --max-side 512
  python cluster/submit.py masks DATA --tasks 32 --method rbd

What is not listed here is an option of the preparation, which these list:
python -m patchmill.loaders.prepare --help, python -m patchmill.loaders.prepare masks --help."""
PREPARATIONS = ("prepare", "masks")
OF_TRAINING = ("nodes", "tasks-per-node")  # alone

# Option -> type, what it stands for, what it says; each is a field of Resources.
ASKED: dict[str, tuple[type, str, str]] = {
    "nodes": (int, "N", "nodes"),
    "gpus-per-node": (int, "G", "GPUs of each, with a process for each"),
    "tasks-per-node": (int, "N", "processes on each node, if not one per GPU"),
    "cpus-per-task": (int, "C", "cores of each process"),
    "mem": (str, "SIZE", "memory of a node, as 400G; 0 is all"),
    "partition": (str, "NAME", ""),
    "account": (str, "NAME", ""),
    "qos": (str, "NAME", ""),
    "constraint": (str, "FEATURE", ""),
    "time": (str, "LIMIT", "minutes, 24:00:00 or 2-00:00:00"),
    "dependency": (str, "WHAT", "as afterok:4711"),
    "comment": (str, "TEXT", ""),
    "array-parallelism": (int, "N", "runs of a sweep at a time"),
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise MillError(f"{message}; --help lists the options")


def parser() -> Parser:
    made = Parser(
        prog="python cluster/submit.py",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_asked(made, list(ASKED))
    made.add_argument("--name", help="of the run's folder")
    made.add_argument("--dir", help="the folder of all runs")
    made.add_argument(
        "--sweep", "--array", action="append", default=[], metavar="KEY=A,B",
        help="a run for each value, as one job array; several make a grid",
    )  # fmt: skip
    made.add_argument("--probe", action="store_true", help="try the environment on a node first")
    made.add_argument(
        "--throughput", metavar="JSON", help="what benchmarks/throughput.py measured, for the plan"
    )
    made.add_argument("words", nargs="*", metavar="key=value", help="settings of training")
    return made


def _add_asked(made: Parser, names: Sequence[str]) -> None:
    for name in names:
        kind, meta, about = ASKED[name]
        made.add_argument(f"--{name}", type=kind, metavar=meta, help=about)
    flag = argparse.BooleanOptionalAction
    made.add_argument("--requeue", action=flag, default=None, help="go on after time limits")
    made.add_argument(
        "--slurm", action="append", default=[], metavar="KEY=VALUE", help="any option of sbatch"
    )
    made.add_argument("--cluster", metavar="NAME|FILE", help="the profile to take defaults from")
    made.add_argument("--local", action="store_true", help="run here, even where SLURM is")
    made.add_argument("--dry-run", action="store_true", help="show plan and script, do nothing")
    made.add_argument("--follow", action="store_true", help="print the logs until it ends")


def read_preparation(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The job's options, and the words that are the preparation's."""
    command, *rest = arguments
    made = Parser(
        prog=f"python cluster/submit.py {command}",
        description=PREPARATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--tasks", type=_count, metavar="N", help="that share the images (32)")
    _add_asked(made, [name for name in ASKED if name not in OF_TRAINING])
    made.set_defaults(command=command)
    return made.parse_known_args(rest)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise MillError(f"--tasks must be a number above 0, not {text}")
    return int(text)


def read(arguments: Sequence[str]) -> argparse.Namespace:
    return parser().parse_intermixed_args(list(arguments))


def asked(given: argparse.Namespace) -> dict[str, Any]:
    """Those options that were given, as fields of Resources."""
    names = [name.replace("-", "_") for name in ASKED] + ["requeue"]
    found = {name: getattr(given, name) for name in names if getattr(given, name, None) is not None}
    return found | {"slurm": dict(map(_pair, given.slurm))}


def words(given: argparse.Namespace) -> list[str]:
    """The settings of training."""
    for word in given.words:
        if word.startswith("cluster="):
            raise MillError(f"clusters are chosen by an option: --cluster {word[8:]}")
    named = {"name": given.name, "out": given.dir}
    return given.words + [f"{key}={value}" for key, value in named.items() if value]


def _pair(text: str) -> tuple[str, str | bool]:
    key, equals, value = text.partition("=")
    if not key:
        raise MillError(f"cannot read --slurm {text!r}: write key=value, as in exclude=node7")
    return key.lstrip("-"), value if equals else True
