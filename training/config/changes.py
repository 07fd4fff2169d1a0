"""What may differ between the configuration of a run and the one that goes on with it.

Settings that say what is learnt must stay as they were: a run whose views, network, optimiser or
schedule changed half-way is neither the one nor the other. Settings that say where, how fast and
how closely watched it runs may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from patchmill.loaders.common import settings as typed

FREE = (
    "name",
    "out",
    "resume",
    "scale",  # a name for settings that are compared themselves, as are the next two
    "size",
    "data.name",
    # Data may have moved; the loader's state knows the samples and refuses others.
    "data.root",
    "data.train",
    "data.masks",
    "data.test",
    "data.bank",
    "evaluate",  # looks at the network without touching it
    "log",
    # Another machine, or another way to use it: the samples and their order stay the same, the
    # rounding does not.
    "train.device",
    "train.precision",
    "train.pipeline",
    "train.workers",
    "train.compile",
    "train.channels_last",
    "train.parallel",
    "train.log_every",
    "train.checkpoint_minutes",
    "train.checkpoint_every",
    "train.keep",
)


class Difference(NamedTuple):
    field: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.field} was {self.before!r} and is {self.now!r} now"


def difference(before: Any, now: Any) -> Difference | None:
    """The first setting that keeps `now` from going on with a run of `before`; None if none does.

    Both are configurations, or what compose.plain makes of them.
    """
    mine, its = _flat(typed.to_plain(now)), _flat(typed.to_plain(before))
    for field in {**mine, **its}:
        if not _free(field) and mine.get(field) != its.get(field):
            return Difference(field, its.get(field), mine.get(field))
    return None


def _free(field: str) -> bool:
    return any(field == free or field.startswith(f"{free}.") for free in FREE)


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat
