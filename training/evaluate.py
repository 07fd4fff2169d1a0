"""Evaluate a run: patchmill evaluate run=runs/NAME evaluate=knn [key=value ...]

--help lists the evaluations and their settings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import say
from patchmill.script import idle_threads_sleep, run_script

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config

HEAD = """\
usage: patchmill evaluate run=DIR [evaluate=EVALUATION] [key=value ...] [options]

Evaluate the networks of a run from a checkpoint: print a table, write it to DIR/EVALUATION.json,
add a line to DIR/evaluations.jsonl and update DIR/report.html.
On several GPUs: torchrun --nproc-per-node 8 -m patchmill evaluate ...

  patchmill evaluate run=runs/moco-scenes-demo evaluate=knn evaluate.k=200
  patchmill evaluate run=runs/emp_ssl-cifar10-cifar evaluate=patches counts=[1,16]

options:
  -h, --help  show this help message and exit

settings, with their defaults; written key=value
"""

# The run's own settings that may differ for an evaluation.
OVERRIDABLE = [
    *("data.train", "data.test", "data.bank"),
    *(
        f"evaluate.{name}"
        for name in ("k", "temperature", "images", "view", "encoder", "batch_size")
    ),
    *(f"train.{name}" for name in ("device", "workers", "pipeline", "precision")),
]


@dataclass
class Command:
    run: str = ""  # the folder of the run
    evaluate: str = "knn"  # the evaluation
    checkpoint: str = "newest"  # newest, best, or the path of one
    unfinished: bool = False  # evaluate a run that has not finished


def main(arguments: Sequence[str] | None = None) -> None:
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or {"--help", "-h"} & set(argv):
        print("\n".join(usage()))
        return
    from patchmill.training.config import command_line

    texts = command_line.split(argv)
    command = _command(texts)
    from patchmill.training import report
    from patchmill.training.evaluation import result, trained_run
    from patchmill.training.evaluation.registry import EVALUATIONS
    from patchmill.training.ranks import distributed
    from patchmill.training.runtime import display

    evaluation = EVALUATIONS[command.evaluate]
    folder = Path(command.run)
    config = _override(trained_run.load_config(folder), texts)
    settings = command_line.parse(evaluation.settings, texts)
    if not command.unfinished:
        trained_run.check_finished(folder)
    world = distributed.connect(config.train.device)
    display.configure_logging(world.rank == 0)
    run = trained_run.load(folder, config, world, command.checkpoint)
    evaluated = evaluation.evaluate(run, settings)
    if world.rank == 0:
        result.print_table(evaluated)
        path = result.write(evaluated, folder, run.step, run.epoch)
        say(f"written to {path}, and into {report.write(folder)}")
    distributed.close()


def usage() -> Iterator[str]:
    from patchmill.loaders.common.settings import field_annotations
    from patchmill.training.config import command_line, settings
    from patchmill.training.evaluation.registry import EVALUATIONS

    yield HEAD
    yield from command_line.describe(Command)
    for name, evaluation in EVALUATIONS.items():
        yield f"\nevaluate={name}  {evaluation.title}"
        yield from command_line.describe(evaluation.settings)
    yield "\nsettings of the run that can be overridden here"
    for key in OVERRIDABLE:
        section, _, name = key.partition(".")
        cls = field_annotations(settings.Config)[section]
        yield from command_line.describe(cls, f"{section}.", [name], "the run's")


# --------------------------------------------------------------------------------- the command line


def _command(texts: Mapping[str, str]) -> Command:
    """Parse the command's own keys, and refuse unknown keys."""
    from patchmill.loaders.common.calls import nearest
    from patchmill.training.config import command_line
    from patchmill.training.evaluation.registry import EVALUATIONS

    command: Command = command_line.parse(Command, texts)
    if command.evaluate not in EVALUATIONS:
        near = nearest(command.evaluate, EVALUATIONS)
        raise MillError(f"there is no evaluate={command.evaluate}{near}")
    if not command.run:
        raise MillError("say which run to evaluate, as run=runs/NAME")
    settings = EVALUATIONS[command.evaluate].settings
    command_line.refuse_unknown(texts, Command, settings, keys=OVERRIDABLE)
    return command


def _override(config: Config, texts: Mapping[str, str]) -> Config:
    """The run's configuration, with the user's values of overridable settings."""
    from patchmill.training.config import compose, overrides

    plain, annotations = compose.plain(config), overrides.keys(type(config))
    for key in OVERRIDABLE:
        if key in texts:
            section, _, name = key.partition(".")
            plain[section][name] = overrides.value(key, texts[key], annotations[key])
    return compose.from_plain(plain)


if __name__ == "__main__":
    idle_threads_sleep()
    run_script(main, __file__)
