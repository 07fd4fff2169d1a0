"""Command line of `patchmill submit`: options of the job, and overrides of the training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from patchmill.loaders.common.arguments import Parser, refuse_options, whole_number
from patchmill.loaders.common.errors import MillError

ABOUT = """\
Queue training on SLURM, or run it here where there is none.

Arguments key=value are training settings, which patchmill train --help lists. Defaults come from
cluster/profiles/ and ~/.config/patchmill/cluster.yaml. With prepare or masks as the first argument,
data are prepared instead: see patchmill submit prepare --help."""
EXAMPLES = (
    "patchmill submit --nodes 8 method=dilo data=imagenet data.root=/data/imagenet",
    "patchmill submit --nodes 8 --dry-run method=dilo",
    "patchmill submit --sweep seed=0,1,2 --sweep optim.lr=0.03,0.06 method=moco data=scenes",
    "patchmill submit prepare SRC OUT --tasks 32",
    "patchmill submit masks DATA --tasks 32",
)

PREPARE_ABOUT = """\
Prepare data as an array of tasks on SLURM, or here where there is none. Run the same command again
to make what is missing.

All other options are passed on to the preparation: see patchmill prepare --help and patchmill masks
--help."""
PREPARE_EXAMPLES = {
    "prepare": "patchmill submit prepare SRC OUT --tasks 32 --max-side 512",
    "masks": "patchmill submit masks DATA --tasks 32 --method rbd",
}
PREPARE_COMMANDS = tuple(PREPARE_EXAMPLES)
TRAINING_ONLY = ("nodes", "tasks-per-node", "stage")

# Option -> type, metavar, help; each is a field of Resources.
RESOURCE_OPTIONS: dict[str, tuple[type, str, str]] = {
    "nodes": (int, "N", "nodes"),
    "gpus-per-node": (int, "G", "GPUs per node, with one process each"),
    "tasks-per-node": (int, "N", "processes per node, if not one per GPU"),
    "cpus-per-task": (int, "C", "cores per process"),
    "mem": (str, "SIZE", "memory per node, such as 400G; 0 for all"),
    "partition": (str, "NAME", ""),
    "account": (str, "NAME", ""),
    "qos": (str, "NAME", ""),
    "constraint": (str, "FEATURE", ""),
    "time": (str, "LIMIT", "minutes, 24:00:00 or 2-00:00:00"),
    "dependency": (str, "WHAT", "such as afterok:4711"),
    "comment": (str, "TEXT", ""),
    "bind": (str, "WHAT", "bind processes to cores, or to numa nodes (none)"),
    "stage": (str, "DIR", "copy the training data to this folder on each node's disk"),
    "array-parallelism": (int, "N", "tasks of an array that run at the same time"),
}


# Options that have no effect without a queue.
SLURM_ONLY = (
    *("mem", "partition", "account", "qos", "constraint", "time", "dependency", "comment"),
    *("array-parallelism", "slurm", "probe"),
)


def parser() -> Parser:
    options = Parser("patchmill submit", "[key=value ...]", ABOUT, EXAMPLES)
    _add_resource_options(options, list(RESOURCE_OPTIONS))
    options.add_argument("--name", help="name of the run's folder")
    options.add_argument("--dir", help="folder of all runs")
    options.add_argument(
        "--sweep", "--array", action="append", default=[], metavar="KEY=A,B",
        help="train one run per value, as one job array; repeat the option for a grid",
    )  # fmt: skip
    options.add_argument(
        "--after", action="append", default=[], metavar="RUN|JOB",
        help="start after this run or job has succeeded",
    )  # fmt: skip
    options.add_argument(
        "--probe", action="store_true", help="test the environment on a node first"
    )
    options.add_argument(
        "--throughput",
        metavar="JSON",
        help="file of `bench throughput --json`, for the plan",
    )
    options.add_argument("overrides", nargs="*", metavar="key=value", help="training settings")
    return options


def _add_resource_options(parser: Parser, names: Sequence[str]) -> None:
    for name in names:
        kind, metavar, help = RESOURCE_OPTIONS[name]
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=help)
    flag = argparse.BooleanOptionalAction
    parser.add_argument("--requeue", action=flag, default=None, help="requeue at the time limit")
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any option of sbatch",
    )
    parser.add_argument("--cluster", metavar="NAME|FILE", help="profile that sets the defaults")
    parser.add_argument("--local", action="store_true", help="run here, even if SLURM is available")
    parser.add_argument("--dry-run", action="store_true", help="only show the plan and the script")
    parser.add_argument("--follow", action="store_true", help="print the logs until the job ends")


def preparation_parser(command: str) -> Parser:
    """Parser of the job's options; the preparation parses the others."""
    example = PREPARE_EXAMPLES[command]
    arguments = "SRC OUT" if command == "prepare" else "DATA"
    options = Parser(f"patchmill submit {command}", arguments, PREPARE_ABOUT, [example])
    options.add_argument("--tasks", type=_count, metavar="N", help="share the images among N (32)")
    _add_resource_options(options, [name for name in RESOURCE_OPTIONS if name not in TRAINING_ONLY])
    options.set_defaults(command=command)
    return options


def read_preparation(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split into the job's options and the preparation's arguments."""
    command, *rest = arguments
    return preparation_parser(command).parse_known_args(rest)


def _count(text: str) -> int:
    number = whole_number(text)
    if not number:
        raise MillError(f"--tasks must be a number above 0, not {text}")
    return number


def read(arguments: Sequence[str]) -> argparse.Namespace:
    return parser().parse_intermixed_args(list(arguments))


def refuse_without_effect(args: argparse.Namespace, argv: Sequence[str]) -> None:
    """Raise a MillError for options that have no effect in combination with others."""
    if args.local:
        names = [f"--{name}" for name in SLURM_ONLY]
        refuse_options(argv, names, "is for SLURM, and --local runs here without it")
    if args.dry_run:
        refuse_options(argv, ["--follow"], "has no logs to print with --dry-run")


def resource_options(args: argparse.Namespace) -> dict[str, Any]:
    """The job's options that are set, as fields of Resources."""
    names = [name.replace("-", "_") for name in RESOURCE_OPTIONS] + ["requeue"]
    values = {name: getattr(args, name, None) for name in names}
    set_ones = {name: value for name, value in values.items() if value is not None}
    return set_ones | {"slurm": dict(map(_pair, args.slurm))}


def training_settings(args: argparse.Namespace) -> list[str]:
    """Overrides key=value, including those of --name and --dir."""
    for override in args.overrides:
        if override.startswith("cluster="):
            raise MillError(f"the cluster is chosen by an option: --cluster {override[8:]}")
    by_option = {"name": args.name, "out": args.dir}
    return args.overrides + [f"{key}={value}" for key, value in by_option.items() if value]


def _pair(text: str) -> tuple[str, str | bool]:
    key, equals, value = text.partition("=")
    if not key:
        raise MillError(f"cannot read --slurm {text!r}: write key=value, as in exclude=node7")
    return key.lstrip("-"), value if equals else True
