"""Makes WebDataset shards or an FFCV .beton of any images, and masks; says what is in them.

python -m patchmill.loaders.prepare SRC OUT --format shards
python -m patchmill.loaders.prepare masks DATA --method rbd
python -m patchmill.loaders.prepare inspect OUT
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.loaders.prepare import make_masks as masking
    from patchmill.loaders.prepare.options import Options
    from patchmill.loaders.sources import Source


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise MillError(f"{message}; --help lists the options")


class RemainingWork(NamedTuple):
    """The part of a command's work that is not done yet."""

    name: str  # of the source
    images: int
    out: Path
    world_size: int
    unfinished_ranks: list[int] | None  # None if the output is complete


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command = COMMANDS.get(given[0]) if given else None
    if command:
        command(given[1:])
    else:
        prepare(given)


def remaining(arguments: Sequence[str]) -> RemainingWork:
    """Check the arguments as `main` does, and return what it would do; writes nothing."""
    from patchmill.loaders.prepare import make_masks as masking
    from patchmill.loaders.prepare import run

    if arguments and arguments[0] == "masks":
        given = _masks_parser().parse_args(arguments[1:])
        known = _mask_options(given)
        source = run.open_any(given.data)
        out = _mask_file(given, source)
        ranks = masking.unfinished_ranks(source, out, known)
        return RemainingWork(source.name, len(source), out, known.world_size, ranks)
    given = _parser().parse_args(arguments)
    options = _options(given)
    source = run.open_any(given.source)
    ranks = run.unfinished_ranks(source, given.out, options)
    return RemainingWork(source.name, len(source), given.out, options.world_size, ranks)


def prepare(arguments: Sequence[str]) -> None:
    given = _parser().parse_args(arguments)
    from patchmill.loaders.prepare import report, run

    options = _options(given)
    workers = _workers(given.workers)
    source = run.open_any(given.source)
    with _continued():
        outcome = run.prepare(source, given.out, options, workers, given.overwrite)
    print(report.summary(outcome) if outcome else _COMPLETE % given.out)


def _options(given: argparse.Namespace) -> Options:
    from patchmill.loaders.prepare import output_paths
    from patchmill.loaders.prepare.options import Options, parse_bytes

    rank, world_size = _share(given.rank, given.world_size, os.environ)
    return Options(
        format=output_paths.choose(given.out, given.format).format,
        max_side=given.max_side,
        quality=given.quality,
        shard_size=parse_bytes(given.shard_size),
        seed=given.seed,
        verify=given.verify,
        rank=rank,
        world_size=world_size,
    )


def make_masks(arguments: Sequence[str]) -> None:
    given = _masks_parser().parse_args(arguments)
    from patchmill.loaders.prepare import make_masks as masking
    from patchmill.loaders.prepare import report, run

    options = _mask_options(given)
    workers = _workers(given.workers)
    source = run.open_any(given.data)
    out = _mask_file(given, source)
    with _continued():
        outcome = masking.make(source, out, options, workers, given.overwrite)
    print(report.masks_summary(outcome) if outcome else _COMPLETE % out)


def _mask_options(given: argparse.Namespace) -> masking.Options:
    from patchmill.loaders.prepare import make_masks as masking

    method = _with_weights(given.method, given.weights)
    return masking.Options(
        method, given.max_side, *_share(given.rank, given.world_size, os.environ)
    )


def _mask_file(given: argparse.Namespace, source: Source) -> Path:
    from patchmill.loaders.copypaste import masks

    return given.out or masks.default_mask_path(source)


def _with_weights(method: str, weights: Path | None) -> str:
    """`learned(size=96)` as `learned(size=96, weights='FILE')`."""
    from patchmill.loaders.common import calls

    name, constants = calls.parse(method)
    if weights is None:
        if name == "learned" and "weights" not in constants:
            raise MillError("--method learned needs --weights FILE: a network that you have")
        return method
    if name != "learned":
        raise MillError(f"--weights are for --method learned, not {name}")
    constants["weights"] = str(weights)
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in constants.items())})"


def inspect(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="python -m patchmill.loaders.prepare inspect",
        description="Say what is in prepared data, and verify every checksum: the exit status is "
        "1 if anything differs.",
    )
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="a folder of shards, a .beton, or .masks"
    )
    given = parser.parse_args(arguments)
    from patchmill.loaders.prepare import inspect_data

    text, problems = inspect_data.inspect(given.out)
    print(text)
    if problems:
        sys.exit("\n".join(["", *problems]))


COMMANDS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "inspect": inspect,
    "masks": make_masks,
}

_COMPLETE = "%s is complete already: nothing to do"


@contextlib.contextmanager
def _continued() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise MillError("interrupted; the same command continues where it stopped") from None


def _workers(given: int | None) -> int:
    if given is not None and given < 1:
        raise MillError(f"--workers must be at least 1, not {given}")
    return given or len(os.sched_getaffinity(0))


def _share(
    rank: int | None, world_size: int | None, environment: Mapping[str, str]
) -> tuple[int, int]:
    """As given, else the place of this task in its SLURM array, else all of the work."""
    if (rank is None) != (world_size is None):
        raise MillError("--rank and --world-size belong together: give both, or neither")
    if rank is not None and world_size is not None:
        return rank, world_size
    try:
        task, count = (int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "COUNT"))
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", 1))
    except (KeyError, ValueError):
        return 0, 1
    rank = (task - first) // step
    logging.getLogger("patchmill").info("rank %d of %d, from the SLURM array", rank, count)
    return rank, count


def _parser() -> Parser:
    parser = Parser(
        prog="python -m patchmill.loaders.prepare",
        description="Make WebDataset shards or an FFCV .beton of images. A run that was "
        "interrupted is continued by the same command. What cannot be decoded is listed in "
        "bad.jsonl and left out.",
        epilog="python -m patchmill.loaders.prepare inspect OUT says what is in OUT and verifies "
        "its checksums.",
    )
    parser.add_argument(
        "source",
        metavar="SRC",
        help="a folder, shards, a .beton, scenes:100, or a list with the columns path and label "
        "(.csv, .tsv, .parquet)",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="a new folder, or a name in .beton")
    parser.add_argument("--format", choices=("shards", "beton"), help="default: by OUT's name")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--max-side",
        type=int,
        metavar="PX",
        help="make larger images as large as this, as JPEGs; smaller ones are kept as they are",
    )
    size.add_argument("--keep", action="store_true", help="keep all as they are (the default)")
    parser.add_argument("--quality", type=int, default=90, help="of those JPEGs (%(default)s)")
    parser.add_argument("--shard-size", default="256MB", help="at most (%(default)s)")
    parser.add_argument("--workers", type=int, help="threads that decode (all cores)")
    parser.add_argument(
        "--verify", action="store_true", help="decode what is kept, too, to find damage"
    )
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--seed", type=int, default=0, help="of the shuffle (%(default)s)")
    order.add_argument(
        "--no-shuffle", dest="seed", action="store_const", const=None, help="keep SRC's order"
    )
    _add_share(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="remove what was prepared in OUT before"
    )
    return parser


def _masks_parser() -> Parser:
    parser = Parser(
        prog="python -m patchmill.loaders.prepare masks",
        description="Find what is foreground in every image, for copy-paste: a file of small masks "
        "that a loader finds by itself. A run that was interrupted is continued by the same "
        "command.",
    )
    parser.add_argument(
        "data", metavar="DATA", help="a folder, shards, a .beton, scenes:100, or a list of images"
    )
    parser.add_argument(
        "--method",
        default="rbd",
        help="rbd, gs, mc or learned, with constants if you like, as in 'rbd(area=400)' "
        "(%(default)s)",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of the method learned")
    parser.add_argument(
        "--out", type=Path, help="default: DATA.masks, or in the cache where that cannot be written"
    )
    parser.add_argument(
        "--max-side", type=int, default=256, metavar="PX", help="of a mask (%(default)s)"
    )
    parser.add_argument("--workers", type=int, help="threads that make masks (all cores)")
    _add_share(parser)
    parser.add_argument("--overwrite", action="store_true", help="remove what was made before")
    return parser


def _add_share(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rank", type=int, help="of the machines that share the work")
    parser.add_argument("--world-size", type=int, help="how many they are (SLURM's array)")
