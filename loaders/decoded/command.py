"""List the stores of decoded images on this machine, and remove unused ones.

patchmill cache
patchmill cache --clean
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from patchmill.loaders.common.arguments import Parser
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.log_lines import StderrLines
from patchmill.loaders.common.printed import say


def main(arguments: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[StderrLines()])
    args = parser().parse_args(sys.argv[1:] if arguments is None else list(arguments))
    from patchmill.loaders.decoded.notes import known_folders

    for folder in args.folders:
        if not folder.is_dir():
            raise MillError(f"there is no folder {str(folder)!r}")
    folders = args.folders or known_folders()
    say("\n".join(clean(folders) if args.clean else show(folders)))


def show(folders: Sequence[Path]) -> list[str]:
    """Lines on each store, and one on how to remove those without users."""
    from patchmill.loaders.decoded.listing import listed

    stores = listed(folders)
    if not stores:
        return [_nothing_in(folders)]
    lines = [line for store in stores for line in _lines(store)]
    unused = [store for store in stores if not store.used]
    if unused:
        size = _size(sum(store.bytes for store in unused))
        lines.append(f"{len(unused)} without users, {size}: patchmill cache --clean removes them")
    return lines


def clean(folders: Sequence[Path]) -> list[str]:
    """Remove the stores that no process uses; return a line for each store."""
    from patchmill.loaders.decoded import locks
    from patchmill.loaders.decoded.listing import listed
    from patchmill.loaders.decoded.opening import stores_in

    lines = []
    sizes = {store.path: store.bytes for store in listed(folders)}
    for path in (path for folder in folders for path in stores_in(folder)):
        try:
            removed = locks.remove_unused(path)
        except OSError as error:
            raise MillError(f"cannot remove {path}: {error.strerror or error}") from None
        if path in sizes:
            what = f"removed {path}, {_size(sizes[path])}" if removed else f"{path} is in use"
            lines.append(what)
    return lines or [_nothing_in(folders)]


def parser() -> Parser:
    options = Parser(
        "patchmill cache",
        "[FOLDER ...]",
        "List the decoded images that loaders keep in RAM and on disk (cache= of a loader, "
        "data.cache= in training): of which data, how many, how large, and which processes use "
        "them. Without a FOLDER, list those in RAM and in all folders used on this machine.",
        ["patchmill cache", "patchmill cache /scratch/images --clean"],
    )
    options.add_argument(
        "folders", metavar="FOLDER", nargs="*", type=Path, help="folders on disk to search"
    )
    options.add_argument("--clean", action="store_true", help="remove stores that no process uses")
    return options


def _lines(store: object) -> list[str]:
    from patchmill.loaders.decoded.listing import Listed

    assert isinstance(store, Listed)
    users = ", ".join(map(str, store.users)) or "another container"
    use = f"used by {users}" if store.used else "not in use"
    figures = f"{store.images:,} of {store.samples:,} images, {_size(store.bytes)}, {use}"
    return [str(store.path), f"  {store.data}: {figures}"]


def _nothing_in(folders: Sequence[Path]) -> str:
    return f"no decoded images are kept in {', '.join(map(str, folders))}"


def _size(size: int) -> str:
    from patchmill.loaders.decoded.spec import size_text

    return size_text(size)
