"""Convert images to WebDataset shards or an FFCV .beton, make masks, and inspect the results.

patchmill prepare SRC OUT --format shards
patchmill prepare SRC FOLDER --format decoded
patchmill masks DATA --method rbd
patchmill inspect OUT
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchmill.loaders.common import ranks
from patchmill.loaders.common.arguments import refuse_options
from patchmill.loaders.common.errors import MillError, memory_errors
from patchmill.loaders.common.log_lines import StderrLines
from patchmill.loaders.common.printed import say
from patchmill.loaders.common.threads import available_cores
from patchmill.loaders.prepare.parsers import DECODED, inspect_parser, masks_parser, parser

if TYPE_CHECKING:
    from patchmill.loaders.prepare.options import MaskOptions, Options
    from patchmill.loaders.sources import Source


class RemainingWork(NamedTuple):
    """The part of a command's work that is not done yet."""

    name: str  # of the source
    images: int
    out: Path
    world_size: int
    unfinished_ranks: list[int] | None  # None if the output is complete


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[StderrLines()])
    subcommand = SUBCOMMANDS.get(arguments[0]) if arguments else None
    if subcommand:
        subcommand(arguments[1:])
    else:
        _make_data(arguments)


def remaining(arguments: Sequence[str]) -> RemainingWork:
    """Check the arguments as `main` does, and return the work it would do; writes nothing."""
    from patchmill.loaders.prepare import make_data, make_masks
    from patchmill.loaders.sources import open_source

    if arguments and arguments[0] == "masks":
        args = masks_parser().parse_args(arguments[1:])
        mask_options = _mask_options(args)
        source = open_source(args.data)
        out, world_size = _mask_path(args, source), mask_options.world_size
        unfinished = make_masks.unfinished_ranks(source, out, mask_options)
    else:
        args = parser().parse_args(arguments)
        if args.format == DECODED:
            raise MillError(
                "--format decoded is for the machine that trains on the images: run patchmill "
                "prepare there, not in a separate job"
            )
        options = _options(args, arguments)
        source = open_source(args.source)
        out, world_size = args.out, options.world_size
        unfinished = make_data.unfinished_ranks(source, out, options)
    return RemainingWork(source.name, len(source), out, world_size, unfinished)


def _make_data(arguments: Sequence[str]) -> None:
    args = parser().parse_args(arguments)
    from patchmill.loaders.prepare import make_data
    from patchmill.loaders.sources import open_source

    if args.format == DECODED:
        refuse_options(arguments, _NOT_DECODED, "is not for --format decoded")
        _make_decoded(args)
        return
    options = _options(args, arguments)
    workers = _workers(args.workers)
    source = open_source(args.source)
    with _readable_errors(workers):
        result = make_data.make(source, args.out, options, workers, args.overwrite)
    say(result or _COMPLETE % args.out)


def _make_decoded(args: argparse.Namespace) -> None:
    from patchmill.loaders.prepare import make_decoded
    from patchmill.loaders.sources import open_source

    rank, world_size = _rank(args.rank, args.world_size, os.environ)
    if not 0 <= rank < world_size:
        raise MillError(f"--rank must be 0 to {world_size - 1}, not {rank}")
    workers, source = _workers(args.workers), open_source(args.source)
    with _readable_errors(workers):
        result = make_decoded.make(
            source, args.out, args.size, workers, rank, world_size, args.max_pixels
        )
    say(result)


_NOT_DECODED = (
    *("--max-side", "--keep", "--quality", "--shard-size", "--verify", "--seed", "--no-shuffle"),
    "--overwrite",
)


def _options(args: argparse.Namespace, arguments: Sequence[str]) -> Options:
    """Options for shards or a .beton; MillError if one of `arguments` has no effect on them."""
    from patchmill.loaders.prepare import output
    from patchmill.loaders.prepare.options import BETON, Options, parse_bytes

    rank, world_size = _rank(args.rank, args.world_size, os.environ)
    format = output.choose_paths(args.out, args.format).format
    refuse_options(arguments, ["--size"], "is for --format decoded")
    if args.max_side is None:
        why = "is for images that --max-side shrinks; without it, all are kept unchanged"
        refuse_options(arguments, ["--quality"], why)
    if format == BETON:
        refuse_options(arguments, ["--shard-size"], "is for shards, but a .beton is one file")
    return Options(
        format=format,
        max_side=args.max_side,
        quality=args.quality,
        shard_size=parse_bytes(args.shard_size),
        seed=args.seed,
        verify=args.verify,
        max_pixels=args.max_pixels,
        rank=rank,
        world_size=world_size,
    )


def _make_masks(arguments: Sequence[str]) -> None:
    args = masks_parser().parse_args(arguments)
    from patchmill.loaders.prepare import make_masks
    from patchmill.loaders.sources import open_source

    options = _mask_options(args)
    workers = _workers(args.workers)
    source = open_source(args.data)
    out = _mask_path(args, source)
    with _readable_errors(workers):
        result = make_masks.make(source, out, options, workers, args.overwrite)
    say(result or _COMPLETE % out)


def _mask_options(args: argparse.Namespace) -> MaskOptions:
    from patchmill.loaders.prepare.options import MaskOptions

    method = _with_weights(args.method, args.weights)
    rank, world_size = _rank(args.rank, args.world_size, os.environ)
    return MaskOptions(method, args.max_side, rank, world_size, args.max_pixels)


def _mask_path(args: argparse.Namespace, source: Source) -> Path:
    from patchmill.loaders.copypaste import masks

    return args.out or masks.default_mask_path(source)


def _with_weights(method: str, weights: Path | None) -> str:
    """Add weights to a method: `learned(size=96, weights='FILE')`."""
    from patchmill.loaders.common import calls

    name, constants = calls.parse(method)
    if weights is None:
        if name == "learned" and "weights" not in constants:
            raise MillError("--method learned needs --weights FILE")
        return method
    if name != "learned":
        raise MillError(f"--weights is for --method learned, not {name}")
    constants["weights"] = str(weights)
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in constants.items())})"


def _inspect(arguments: Sequence[str]) -> None:
    args = inspect_parser().parse_args(arguments)
    from patchmill.loaders.prepare import inspect_data

    text, problems = inspect_data.inspect(args.out)
    say(text)
    if problems:
        sys.exit("\n".join(["", *problems]))


SUBCOMMANDS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "inspect": _inspect,
    "masks": _make_masks,
}

_ARRAY = "SLURM_ARRAY_TASK_"  # prefix of SLURM's variables
_COMPLETE = "%s is complete already: nothing to do"


@contextlib.contextmanager
def _readable_errors(workers: int) -> Iterator[None]:
    """Turn Ctrl-C and a shortage of memory or threads into a MillError."""
    remedy = f"use fewer --workers ({workers} now), or close other programs, and run it again"
    try:
        with memory_errors("another image", f"{remedy}: it continues where it stopped"):
            yield
    except KeyboardInterrupt:
        raise MillError("interrupted; the same command continues where it stopped") from None


def _workers(count: int | None) -> int:
    if count is not None and count < 1:
        raise MillError(f"--workers must be at least 1, not {count}")
    return count or available_cores()


def _rank(
    rank: int | None, world_size: int | None, environment: Mapping[str, str]
) -> tuple[int, int]:
    """Rank and world size: those given, or those of the SLURM array, or 0 and 1."""
    if (rank is None) != (world_size is None):
        raise MillError("--rank and --world-size belong together: give both, or neither")
    if rank is not None and world_size is not None:
        return rank, world_size
    if not {f"{_ARRAY}ID", f"{_ARRAY}COUNT"} <= environment.keys():
        return 0, 1
    task, count = (ranks.number(environment, _ARRAY + name) for name in ("ID", "COUNT"))
    first = ranks.number(environment, f"{_ARRAY}MIN", 0)
    rank = (task - first) // max(ranks.number(environment, f"{_ARRAY}STEP", 1), 1)
    logging.getLogger("patchmill").info("rank %d of %d, from the SLURM array", rank, count)
    return rank, count
