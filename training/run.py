"""Train: patchmill train method=dilo data=scenes [key=value ...]

--help lists methods, data, scales and every setting.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import say
from patchmill.script import idle_threads_sleep, run_script

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config


def main(arguments: Sequence[str] | None = None) -> None:
    from patchmill.training.config import compose, usage

    options, overrides = _split(sys.argv[1:] if arguments is None else arguments)
    if options & {"--help", "-h"}:
        print(usage.text(overrides))
        return
    config = compose.compose(overrides)
    if "--show" in options:
        _show(config, overrides)
        return
    _train(config)


def _show(config: Config, overrides: Sequence[str]) -> None:
    """Print the settings as YAML, followed by the expected hours as a comment."""
    from patchmill.training import expected_hours
    from patchmill.training.config import compose
    from patchmill.training.ranks import rendezvous

    print(compose.to_yaml(config), end="", flush=True)
    rank_info = rendezvous.find()
    ranks = rank_info.size if rank_info else 1
    device = expected_hours.this_device(config)
    print(f"# expected: {expected_hours.expect(config, ranks, device, overrides)}")


def _train(config: Config) -> None:
    from patchmill.training import engine
    from patchmill.training.ranks import rendezvous, signals
    from patchmill.training.ranks.prompt_end import prompt_end
    from patchmill.training.runtime import display

    rank_info = rendezvous.find()
    is_rank0 = rank_info is None or rank_info.rank == 0
    display.configure_logging(is_rank0)
    if is_rank0:
        say(f"the run is in {Path(config.out) / config.name}")
    try:
        with contextlib.nullcontext() if rank_info else prompt_end():
            folder = engine.train(config)
    except signals.Stopped:
        signals.exit_now()
    if is_rank0 and (summary := display.summary(folder)):
        say(summary)
    if rank_info:
        signals.exit_now(0)  # torchrun would count an abort here as a failed run


def _split(arguments: Sequence[str]) -> tuple[set[str], list[str]]:
    """Options such as --help, and settings."""
    options = {one for one in arguments if one.startswith("-")}
    for option in options - {"--help", "-h", "--show"}:
        raise MillError(f"there is no option {option}: settings are written key=value")
    return options, [one for one in arguments if one not in options]


if __name__ == "__main__":
    idle_threads_sleep()
    run_script(main, __file__)
