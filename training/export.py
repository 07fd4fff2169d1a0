"""Export a run's backbone to another library: patchmill export run=DIR to=timm

--help lists the libraries and the settings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import say
from patchmill.script import idle_threads_sleep, run_script

if TYPE_CHECKING:
    from patchmill.training.exports.encoder import Encoder
    from patchmill.training.exports.written import Export

HEAD = """\
usage: patchmill export run=DIR to=LIBRARY [key=value ...] [options]

Write the backbone of a run, as it is evaluated, in another library's native format, with the mean
and std of its views, and print the lines of Python that load it.

  patchmill export run=runs/moco-imagenet-paper to=torchvision
  patchmill export run=runs/dino-scenes-demo to=hf out=models/dino encoder=student

options:
  -h, --help  show this help message and exit

settings, with their defaults; written key=value
"""


@dataclass
class Command:
    run: str = ""  # the folder of the run
    to: str = ""  # the library
    out: str = ""  # the folder to write to; by default DIR/exports/LIBRARY
    checkpoint: str = "newest"  # newest, best, or the path of one
    encoder: Literal["auto", "student", "teacher"] = "auto"  # auto: what the method evaluates
    unfinished: bool = False  # export a run that has not finished
    force: bool = False  # overwrite an earlier export


def main(arguments: Sequence[str] | None = None) -> None:
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or {"--help", "-h"} & set(argv):
        print("\n".join(usage()))
        return
    command = _command(argv)
    from patchmill.training.evaluation import trained_run
    from patchmill.training.exports import encoder, written
    from patchmill.training.exports.registry import LIBRARIES
    from patchmill.training.ranks.distributed import World

    folder = Path(command.run)
    config = trained_run.load_config(folder)
    if not command.unfinished:
        trained_run.check_finished(folder)
    run = trained_run.load(folder, config, World(), command.checkpoint)
    exported = encoder.from_run(run, command.encoder)
    export = LIBRARIES[command.to].export(exported)
    out = Path(command.out) if command.out else folder / "exports" / command.to
    written.write(export, out, command.force)
    say("\n".join(_summary(exported, export, out)))


def usage() -> Iterator[str]:
    from patchmill.training.config import command_line
    from patchmill.training.exports.registry import LIBRARIES

    yield HEAD
    yield from command_line.describe(Command)
    yield "\nlibraries"
    for name, library in LIBRARIES.items():
        yield f"  to={name:<14} {library.title}"


def _command(argv: Sequence[str]) -> Command:
    from patchmill.loaders.common.calls import nearest
    from patchmill.training.config import command_line
    from patchmill.training.exports.registry import LIBRARIES

    texts = command_line.split(argv)
    command_line.refuse_unknown(texts, Command)
    command: Command = command_line.parse(Command, texts)
    if not command.run:
        raise MillError("say which run to export, as run=runs/NAME")
    if not command.to:
        raise MillError(
            f"say which library to export to, as to=timm; there are: {', '.join(LIBRARIES)}"
        )
    if command.to not in LIBRARIES:
        raise MillError(f"there is no to={command.to}{nearest(command.to, LIBRARIES)}")
    return command


def _summary(encoder: Encoder, export: Export, out: Path) -> Iterator[str]:
    facts = encoder.facts
    yield f"written to {out}: {', '.join(export.files)}"
    yield (
        f"{encoder.name}, the {facts['encoder']} of {facts['method']} after step {facts['step']:,} "
        f"on views of {encoder.size} x {encoder.size}"
    )
    for note in export.notes:
        yield f"note: {note}"
    yield "load it by"
    for line in export.load:
        yield "  " + line.replace("{out}", out.as_posix())


if __name__ == "__main__":
    idle_threads_sleep()
    run_script(main, __file__)
