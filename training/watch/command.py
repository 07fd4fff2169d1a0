"""Watch runs in a browser, or look at the views of a recipe:

patchmill watch runs
patchmill watch DATA --recipe 'dino(local_crops=6)'
"""

from __future__ import annotations

import argparse
import getpass
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchmill.loaders.common.arguments import Parser
from patchmill.loaders.common.errors import MillError
from patchmill.training.watch.address import ADDRESS, PORT

if TYPE_CHECKING:
    from patchmill.training.watch.routes import Site
    from patchmill.training.watch.server import Server


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    from patchmill.training.watch.server import Server

    with_port = args.port is not None
    server = Server(_site(args), args.port if with_port else PORT, exact=with_port)
    try:
        print(_invitation(args.what, server), flush=True)
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:  # the usual end
        print()
    finally:
        server.stop()


def _site(args: argparse.Namespace) -> Site:
    from patchmill.training.watch.drawings import Subject
    from patchmill.training.watch.routes import Site
    from patchmill.training.watch.shelf import Shelf

    if args.recipe:
        from patchmill.loaders.recipe_load import load_recipe

        load_recipe(args.recipe)  # says now what is wrong with it
        return Site(subject=Subject(args.what, args.recipe, args.seed))
    folder = Path(args.what).expanduser()
    if not folder.is_dir():
        raise MillError(
            f"there is no folder {args.what}: name that of a run or of runs, or images with "
            "--recipe NAME"
        )
    return Site(Shelf(folder))


def _invitation(what: str, server: Server) -> str:
    port = server.port
    return (
        f"watching {what}: {server.url}\n"
        f"from another machine, first: ssh -L {port}:{ADDRESS}:{port} "
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
        "Serve a live page on a run, or on all runs below a folder: curves, data wait, views, "
        "unreadable images, and runs side by side. Nobody but you, on this machine or through ssh, "
        "can open it, and nothing is written.",
        ["patchmill watch", "patchmill watch photos --recipe 'dino(local_crops=6)'"],
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
        "--seed", type=int, default=0, help="of the recipe's views (default: %(default)s)"
    )
    options.add_argument(
        "--port", type=_port, help=f"the port (default: {PORT}, or the next that is free)"
    )
    return options


def _port(text: str) -> int:
    if text.isdecimal() and 0 <= int(text) < 2**16:
        return int(text)
    raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
