"""Argument parsers of `patchmill prepare`, `masks` and `inspect`."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchmill.loaders.common.arguments import Parser
from patchmill.loaders.decode.bad_image import MAX_PIXELS

DECODED = "decoded"  # as a --format


def parser() -> Parser:
    options = Parser(
        "patchmill prepare",
        "SRC OUT",
        "Convert images to WebDataset shards or an FFCV .beton. Repeating the command continues an "
        "interrupted run. Images that cannot be decoded are skipped and listed in bad.jsonl. "
        "patchmill inspect OUT describes the result and verifies its checksums.\n\n"
        "With --format decoded, keep the images of SRC decoded in the folder OUT, for loaders "
        "with cache=disk:OUT:SIZE; patchmill cache lists what it holds.",
        [
            "patchmill prepare photos shards",
            "patchmill prepare photos photos.beton --max-side 512",
            "patchmill prepare photos decoded --format decoded --size 200GB",
        ],
    )
    options.add_argument(
        "source",
        metavar="SRC",
        help="a folder, shards, a .beton, scenes:100, Parquet files with images, or a list with "
        "the columns path and label (.csv, .tsv, .jsonl, .parquet)",
    )
    options.add_argument("out", metavar="OUT", type=Path, help="a new folder, or a file NAME.beton")
    options.add_argument(
        "--format", choices=("shards", "beton", DECODED), help="default: by the name of OUT"
    )
    options.add_argument(
        "--size", help="maximum size of the decoded images (default: nine tenths of the free space)"
    )
    size = options.add_mutually_exclusive_group()
    size.add_argument(
        "--max-side",
        type=int,
        metavar="PX",
        help="shrink larger images to this longer side, as JPEGs; keep smaller ones unchanged",
    )
    size.add_argument("--keep", action="store_true", help="keep all unchanged (default)")
    options.add_argument("--quality", type=int, default=90, help="of those JPEGs (%(default)s)")
    options.add_argument("--shard-size", default="256MB", help="maximum (%(default)s)")
    options.add_argument("--workers", type=int, help="threads (default: one per core)")
    options.add_argument(
        "--verify", action="store_true", help="also decode unchanged images, to find damage"
    )
    order = options.add_mutually_exclusive_group()
    order.add_argument("--seed", type=int, default=0, help="of the shuffle (%(default)s)")
    order.add_argument(
        "--no-shuffle", dest="seed", action="store_const", const=None, help="keep the order of SRC"
    )
    _add_max_pixels(options)
    _add_share(options)
    options.add_argument("--overwrite", action="store_true", help="remove an earlier output in OUT")
    return options


def masks_parser() -> Parser:
    options = Parser(
        "patchmill masks",
        "DATA",
        "Make a foreground mask of every image, for copy-paste, in a file of small masks that "
        "loaders find automatically. Repeating the command continues an interrupted run.",
        ["patchmill masks photos", "patchmill masks shards --method 'rbd(area=400)'"],
    )
    options.add_argument(
        "data",
        metavar="DATA",
        help="a folder, shards, a .beton, scenes:100, Parquet files, or a list of images",
    )
    options.add_argument(
        "--method",
        default="rbd",
        help="rbd, gs, mc or learned, optionally with constants, as in 'rbd(area=400)' "
        "(%(default)s)",
    )
    options.add_argument("--weights", type=Path, metavar="FILE", help="network for learned")
    options.add_argument(
        "--out", type=Path, help="default: DATA.masks, or in the cache if that cannot be written"
    )
    options.add_argument(
        "--max-side",
        type=int,
        default=256,
        metavar="PX",
        help="of a mask (%(default)s)",
    )
    options.add_argument("--workers", type=int, help="threads (default: one per core)")
    _add_max_pixels(options)
    _add_share(options)
    options.add_argument("--overwrite", action="store_true", help="remove an earlier file")
    return options


def inspect_parser() -> Parser:
    options = Parser(
        "patchmill inspect",
        "OUT",
        "Describe prepared data and verify every checksum. The exit status is 1 if anything "
        "differs.",
        ["patchmill inspect shards", "patchmill inspect photos.masks"],
    )
    options.add_argument(
        "out", metavar="OUT", type=Path, help="a folder of shards, a .beton, or .masks"
    )
    return options


def _add_max_pixels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help="limit for one image; a larger one is skipped, as by loaders (%(default)s)",
    )


def _add_share(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rank", type=int, help="of this machine, among those that share the work")
    parser.add_argument("--world-size", type=int, help="number of them (default: SLURM's array)")
