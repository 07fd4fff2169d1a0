"""Trains: python training/run.py method=dilo data=scenes [key=value ...]

--help lists methods, data, scales and every setting.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from patchmill.loaders.common.errors import MillError, run_command


def main(arguments: Sequence[str] | None = None) -> None:
    from patchmill.training.config import compose

    given = list(sys.argv[1:] if arguments is None else arguments)
    options, words = _split(given)
    if options & {"--help", "-h"}:
        from patchmill.training.config import usage

        print(usage.text(words))
        return
    config = compose.compose(words)
    if "--show" in options:
        print(compose.to_yaml(config), end="")
        return
    from patchmill.training import engine
    from patchmill.training.ranks import rendezvous
    from patchmill.training.runtime import display, summary

    place = rendezvous.place()
    first = place is None or place.rank == 0
    display.speak(first)
    if first:
        print(f"the run is in {Path(config.out) / config.name}", flush=True)
    folder = engine.train(config)
    for line in summary.told(folder) if first else ():
        print(line)


def _split(given: Sequence[str]) -> tuple[set[str], list[str]]:
    options = {word for word in given if word.startswith("-")}
    for option in options - {"--help", "-h", "--show"}:
        raise MillError(f"there is no option {option}: settings are written key=value")
    return options, [word for word in given if word not in options]


if __name__ == "__main__":
    here = Path(__file__).parent.resolve()
    if sys.path and Path(sys.path[0]).resolve() == here:
        # A script's folder comes first where modules are looked for, and this one holds names that
        # other packages have, too, such as distributed and evaluate.
        del sys.path[0]
    from patchmill.training.runtime.thread_wait import wait_asleep

    wait_asleep()
    try:
        run_command(main)
    except SystemExit as ended:
        if ended.__class__ is not SystemExit:  # stopping.Stopped, and torch is imported by now
            from patchmill.training.ranks import signals

            signals.leave()
        raise
