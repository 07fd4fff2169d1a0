"""Learning-rate and weight-decay schedules in closed form, without state to save."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from patchmill.training.config.settings import Optim


class Rates(NamedTuple):
    lr: float
    weight_decay: float


def rates_at(
    settings: Optim, global_batch: int, step: int, steps: int, steps_per_epoch: int
) -> Rates:
    """Return the rates of step `step` of `steps`, counted from 0.

    The learning rate rises linearly from 0 in the first `warmup` epochs, then follows the schedule
    over the rest; with `per_epoch`, its value at the start of an epoch is used for the whole epoch.
    With `warmup_start`, it rises between epochs, from that share of the peak in the first epoch of
    the warm-up to the peak in the last. With `warmup_end`, the last step of the warm-up has the
    peak rate; otherwise the first step after it.

    `poly` is mmsegmentation's, with power 1: the rate falls linearly to 0 over all steps, and the
    warm-up, from `warmup_start` step by step, is multiplied with it.
    """
    peak = peak_lr(settings, global_batch)
    final = settings.final if settings.min_lr is None else settings.min_lr / peak
    return Rates(
        peak * _lr_factor(settings, final, step, steps, steps_per_epoch),
        _weight_decay(settings, step, steps),
    )


def peak_lr(settings: Optim, global_batch: int) -> float:
    return settings.lr * (global_batch / 256 if settings.scaled else 1.0)


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` to `end`, for progress from 0 to 1."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(progress, 1.0)))


def _lr_factor(settings: Optim, final: float, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return the fraction of the peak learning rate; `final` is the fraction after a cosine."""
    warmup = round(settings.warmup * steps_per_epoch)
    if settings.schedule == "poly":
        start = settings.warmup_start or 0.0
        ramp = start + (1 - start) * min(step / max(warmup, 1), 1.0) if warmup else 1.0
        return ramp * (1 - step / steps)
    if step < warmup:
        if settings.warmup_start is None:
            return step / max(warmup - settings.warmup_end, 1)
        done = step // steps_per_epoch / max(settings.warmup - 1, 1)
        return settings.warmup_start + (1 - settings.warmup_start) * min(done, 1.0)
    if settings.per_epoch:
        step = max(step // steps_per_epoch * steps_per_epoch, warmup)
    if settings.schedule == "cosine":
        return cosine(1.0, final, (step - warmup) / max(steps - warmup, 1))
    if settings.schedule == "steps":
        milestones = sum(step >= epoch * steps_per_epoch for epoch in settings.milestones)
        return settings.gamma**milestones
    return 1.0


def _weight_decay(settings: Optim, step: int, steps: int) -> float:
    end = settings.weight_decay_end
    return (
        settings.weight_decay if end is None else cosine(settings.weight_decay, end, step / steps)
    )
