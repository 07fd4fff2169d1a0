"""Expand a command into its runs: one, or one per point of a sweep's grid."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose
from patchmill.training.config.settings import Config

MAX_RUNS = 1000  # the largest array that many clusters allow


class Runs(NamedTuple):
    configs: list[Config]
    folder: Path  # the run's, or the parent of all runs of a sweep

    @property
    def is_sweep(self) -> bool:
        return Path(self.configs[0].out) / self.configs[0].name != self.folder


def expand(overrides: Sequence[str], sweeps: Sequence[str]) -> Runs:
    """Compose and thereby check the configuration of every run."""
    if not sweeps:
        config = _absolute(compose.compose(overrides))
        return Runs([config], Path(config.out) / config.name)
    axes = [_axis(text) for text in sweeps]
    points = list(itertools.product(*axes))
    if len(points) > MAX_RUNS:
        raise MillError(f"this sweep has {len(points):,} runs: make it at most {MAX_RUNS:,}")
    configs = [_absolute(compose.compose([*overrides, *point])) for point in points]
    first = configs[0]
    name = next((one[5:] for one in reversed(overrides) if one.startswith("name=")), None)
    folder = Path(first.out) / (name or f"{first.name}-sweep")
    for config, point in zip(configs, points, strict=True):
        config.out, config.name = str(folder), ",".join(map(_label, point))
    names = [config.name for config in configs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise MillError(f"the sweep contains {twice} twice: each run needs its own folder")
    return Runs(configs, folder)


def _absolute(config: Config) -> Config:
    config.out = str(Path(config.out).resolve())
    return config


def _axis(text: str) -> list[str]:
    """`seed=0,1,2` or `seed=range(0,3)` as [`seed=0`, `seed=1`, `seed=2`]."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key = text.partition("=")[0]
    try:
        sweep = OverridesParser.create().parse_override(text)
        values = list(sweep.sweep_string_iterator()) if sweep.is_sweep_override() else []
    except HydraException:
        values = []
    if not values:
        raise MillError(f"cannot sweep over {text!r}: give several values, as in seed=0,1,2")
    return [f"{key}={value}" for value in values]


def _label(override: str) -> str:
    """Part of the name of a run's folder: `seed=1` or `lr=0.1`."""
    key, _, value = override.partition("=")
    plain = re.sub(r"[^\w.+-]+", "-", value).strip("-")
    return f"{key.rpartition('.')[2]}={plain}"
