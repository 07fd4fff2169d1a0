"""Evaluates a run: python training/evaluate.py run=runs/NAME evaluate=knn [key=value ...]

--help lists the evaluations and their settings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmill.loaders.common.errors import MillError, run_command

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config

HEAD = """\
usage: python training/evaluate.py run=DIR [evaluate=EVALUATION] [key=value ...]

Evaluates the networks of a run as a checkpoint has them: prints a table, writes it to
DIR/EVALUATION.json, adds a line to DIR/evaluations.jsonl and writes DIR/report.html anew.
On several GPUs: torchrun --nproc-per-node 8 training/evaluate.py ...

  python training/evaluate.py run=runs/moco-scenes-demo evaluate=knn evaluate.k=200
  python training/evaluate.py run=runs/emp_ssl-cifar10-cifar evaluate=patches counts=[1,16]
"""

# Of the run's own settings, those that say what it is evaluated on, and where.
OPEN = [
    *("data.train", "data.test", "data.bank"),
    *(f"evaluate.{it}" for it in ("k", "temperature", "images", "view", "batch_size")),
    *(f"train.{it}" for it in ("device", "workers", "pipeline", "precision")),
]


@dataclass
class Command:
    run: str = ""  # the folder of the run
    evaluate: str = "knn"  # what to look at
    checkpoint: str = "newest"  # newest, best, or the path of one
    unfinished: bool = False  # evaluate a run that has not come to its end


def main(arguments: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or {"--help", "-h"} & set(words):
        print("\n".join(usage()))
        return
    given = _split(words)
    command = _command(given)
    from patchmill.training import report
    from patchmill.training.evaluation import findings, trained
    from patchmill.training.evaluation.table import EVALUATIONS
    from patchmill.training.ranks import distributed
    from patchmill.training.runtime import display

    evaluation = EVALUATIONS[command.evaluate]
    folder = Path(command.run)
    config = _changed(trained.configuration(folder), given)
    settings = _settings(evaluation.settings, given)
    if not command.unfinished:
        trained.check_finished(folder)
    world = distributed.connect(config.train.device)
    display.speak(world.rank == 0)
    run = trained.load(folder, config, world, command.checkpoint)
    found = evaluation.evaluate(run, settings)
    if world.rank == 0:
        findings.show(found)
        path = findings.write(found, folder, run.step, run.epoch)
        print(f"written to {path}, and into {report.write(folder)}")
    distributed.close()


def usage() -> Iterator[str]:
    from patchmill.loaders.common import settings as typed
    from patchmill.training.config import settings
    from patchmill.training.evaluation.table import EVALUATIONS

    yield HEAD
    yield from _listed(Command)
    for name, evaluation in EVALUATIONS.items():
        yield f"\nevaluate={name}  {evaluation.title}"
        yield from _listed(evaluation.settings)
    yield "\nsettings of the run that may be others here"
    for key in OPEN:
        section, _, name = key.partition(".")
        cls = typed.field_annotations(settings.Config)[section]
        yield from _listed(cls, f"{section}.", [name], "the run's")


def _listed(
    cls: type, prefix: str = "", names: Sequence[str] = (), default: str = ""
) -> Iterator[str]:
    from patchmill.loaders.common import settings as typed
    from patchmill.training.config import usage

    about, values = usage.comments(cls), cls()
    for name in names or typed.field_annotations(cls):
        kind = typed.describe_type(typed.field_annotations(cls)[name])
        shown = default or usage.shown(getattr(values, name))
        yield f"  {prefix + name:<20} {shown:<11} {about[name]} ({kind})"


# -------------------------------------------------------------------------------- what was written


def _split(words: Sequence[str]) -> dict[str, str]:
    given = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.replace(".", "_").isidentifier():
            raise MillError(f"cannot read {word!r}: write key=value, as in run=runs/NAME")
        given[key] = text
    return given


def _command(given: Mapping[str, str]) -> Command:
    """Checks all keys, too, as this knows which there are."""
    from patchmill.loaders.common import settings as typed
    from patchmill.loaders.common.calls import nearest
    from patchmill.training.config import overrides
    from patchmill.training.evaluation.table import EVALUATIONS

    command: Command = _made(Command, given)
    if command.evaluate not in EVALUATIONS:
        near = nearest(command.evaluate, EVALUATIONS)
        raise MillError(f"there is no evaluate={command.evaluate}{near}")
    if not command.run:
        raise MillError("say which run to evaluate, as run=runs/NAME")
    own = typed.field_annotations(EVALUATIONS[command.evaluate].settings)
    known = {**typed.field_annotations(Command), **own, **dict.fromkeys(OPEN)}
    for key in given:
        overrides.annotation(key, known)
    return command


def _settings(cls: type, given: Mapping[str, str]) -> Any:
    return _made(cls, given)


def _made(cls: type, given: Mapping[str, str]) -> Any:
    """The dataclass, of those words that are its fields."""
    from patchmill.loaders.common import settings as typed
    from patchmill.training.config import overrides

    known = typed.field_annotations(cls)
    own = {key: text for key, text in given.items() if key in known}
    return typed.from_plain(cls, {key: overrides.value(key, own[key], known[key]) for key in own})


def _changed(config: Config, given: Mapping[str, str]) -> Config:
    """The run's configuration, with what may be otherwise here."""
    from patchmill.training.config import compose, overrides

    plain, known = compose.plain(config), overrides.keys(type(config))
    for key in OPEN:
        if key in given:
            section, _, name = key.partition(".")
            plain[section][name] = overrides.value(key, given[key], known[key])
    return compose.from_plain(plain)


if __name__ == "__main__":
    here = Path(__file__).parent.resolve()
    if sys.path and Path(sys.path[0]).resolve() == here:
        # A script's folder comes first where modules are looked for, and this one holds names that
        # other packages have, too, such as distributed and evaluate.
        del sys.path[0]
    from patchmill.training.runtime.thread_wait import wait_asleep

    wait_asleep()
    run_command(main)
