"""Settings that may change when a run resumes.

Settings that affect what is learnt (views, network, optimiser, schedule) must stay the same.
Settings for where and how fast a run trains, and for what it logs, may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from patchmill.loaders.common.settings import to_plain

MAY_CHANGE = (
    "name",
    "out",
    "resume",
    "scale",  # only names settings that are compared themselves, like the next two
    "size",
    "data.name",
    # Data may have moved; the loader's state identifies the samples and refuses others.
    "data.root",
    "data.train",
    "data.masks",
    "data.cache",
    "data.test",
    "data.bank",
    "evaluate",  # does not change the network
    "log",
    # Another machine, or another use of it: samples and their order stay the same, rounding does
    # not.
    "train.device",
    "train.precision",
    "train.pipeline",
    "train.workers",
    "train.prefetch",
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
    """The first setting that prevents `now` from resuming a run of `before`, or None.

    Both are configurations, or plain data from compose.plain.
    """
    old, new = _flatten(to_plain(before)), _flatten(to_plain(now))
    for field in {**new, **old}:
        if not _may_change(field) and new.get(field) != old.get(field):
            return Difference(field, old.get(field), new.get(field))
    return None


def _may_change(field: str) -> bool:
    return any(field == name or field.startswith(f"{name}.") for name in MAY_CHANGE)


def _flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"lr": 1}}` -> `{"optim.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        nested = isinstance(value, Mapping)
        flat |= _flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat
