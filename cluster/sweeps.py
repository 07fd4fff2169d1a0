"""The runs that a command stands for: one, or one for each point of a grid."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose
from patchmill.training.config.settings import Config

MOST = 1000  # runs, which is what many clusters allow in an array


class Runs(NamedTuple):
    configs: list[Config]
    folder: Path  # of the run; of a sweep, what its runs' folders are in

    @property
    def is_sweep(self) -> bool:
        return Path(self.configs[0].out) / self.configs[0].name != self.folder


def runs(words: Sequence[str], swept: Sequence[str]) -> Runs:
    """All are composed, and so checked."""
    if not swept:
        config = _absolute(compose.compose(words))
        return Runs([config], Path(config.out) / config.name)
    axes = [_axis(text) for text in swept]
    points = list(itertools.product(*axes))
    if len(points) > MOST:
        raise MillError(f"this sweep has {len(points):,} runs: make it at most {MOST:,}")
    configs = [_absolute(compose.compose([*words, *point])) for point in points]
    first = configs[0]
    named = next((word[5:] for word in reversed(words) if word.startswith("name=")), None)
    folder = Path(first.out) / (named or f"{first.name}-sweep")
    for config, point in zip(configs, points, strict=True):
        config.out, config.name = str(folder), ",".join(map(_label, point))
    names = [config.name for config in configs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise MillError(f"the sweep has {twice} twice: each of its runs needs a folder of its own")
    return Runs(configs, folder)


def _absolute(config: Config) -> Config:
    config.out = str(Path(config.out).resolve())
    return config


def _axis(text: str) -> list[str]:
    """`seed=0,1,2` or `seed=range(0,3)`, as the words of each."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key = text.partition("=")[0]
    try:
        read = OverridesParser.create().parse_override(text)
        values = list(read.sweep_string_iterator()) if read.is_sweep_override() else []
    except HydraException:
        values = []
    if not values:
        raise MillError(f"cannot sweep over {text!r}: write several values, as in seed=0,1,2")
    return [f"{key}={value}" for value in values]


def _label(word: str) -> str:
    """Of a run's folder: seed=1, lr=0.1."""
    key, _, value = word.partition("=")
    plain = re.sub(r"[^\w.+-]+", "-", value).strip("-")
    return f"{key.rpartition('.')[2]}={plain}"
