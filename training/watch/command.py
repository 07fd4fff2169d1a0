"""Watch runs, or the views of a recipe, in a browser:

patchmill watch runs
patchmill watch DATA --recipe 'dino(local_crops=6)'
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchmill.loaders.common.arguments import Parser, refuse_options
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import say

if TYPE_CHECKING:
    from patchmill.training.watch.routes import Site
    from patchmill.training.watch.server import Server

PORT = 8421


def main(arguments: Sequence[str] | None = None) -> None:
    argv = list(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(argv)
    if args.recipe is None:
        refuse_options(argv, ["--seed"], "is for the views that --recipe shows: add --recipe NAME")
    site = _site(args.what, args.recipe, args.seed)

    from patchmill.training.watch.server import Server

    with_port = args.port is not None
    server = Server(site, _checked(args.port) if with_port else PORT, exact=with_port)
    try:
        say(_invitation(args.what, server))
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:  # the usual way to end
        print(flush=True)
        os._exit(0)  # do not wait: a thread may be drawing, and torch takes seconds to exit
    finally:
        server.stop()


def _site(what: str, recipe: str | None, seed: int) -> Site:
    from patchmill.training.watch.drawings import Subject
    from patchmill.training.watch.routes import Site
    from patchmill.training.watch.shelf import Shelf

    if recipe is not None:
        from patchmill.loaders.recipe_load import load_recipe

        load_recipe(recipe)  # report errors now
        return Site(subject=Subject(what, recipe, seed))
    folder = Path(what).expanduser()
    if not folder.is_dir():
        raise MillError(
            f"there is no folder {what}: name that of a run or of runs, or images with "
            "--recipe NAME"
        )
    return Site(Shelf(folder))


def _checked(port: int) -> int:
    if not 0 <= port < 2**16:
        raise MillError(f"there is no port {port}: choose one from 1024 to 65535")
    return port


def _invitation(what: str, server: Server) -> str:
    port, address = server.port, server.address
    return (
        f"watching {what}: {server.url}\n"
        f"from another machine, first: ssh -L {port}:{address}:{port} "
        f"{_user()}{socket.gethostname()}\n"
        "Ctrl-C ends it"
    )


def _user() -> str:
    try:
        return f"{getpass.getuser()}@"
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return ""


def parser() -> Parser:
    options = Parser(
        "patchmill watch",
        "[RUN|DIR|DATA]",
        "Serve a live page of a run, or of all runs below a folder, to a browser on this machine "
        "or through ssh: curves, data wait, views, unreadable images, runs side by side.",
        [
            "patchmill watch",
            "patchmill watch runs/dilo-scenes-demo --port 9000",
            "patchmill watch photos --recipe 'dino(local_crops=6)'",
        ],
    )
    options.add_argument(
        "what",
        metavar="RUN|DIR|DATA",
        nargs="?",
        default="runs",
        help="the folder of a run or of runs; with --recipe, images (default: %(default)s)",
    )
    options.add_argument(
        "--recipe", help="show the views of this recipe instead, as in 'dino(local_crops=6)'"
    )
    options.add_argument(
        "--seed", type=int, default=0, help="seed of the recipe's views (default: %(default)s)"
    )
    options.add_argument(
        "--port", type=int, help=f"the port (default: {PORT}, or the next free one)"
    )
    return options
