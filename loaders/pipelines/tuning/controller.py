"""`decide`: choose the workers and the batches ahead for a machine from the measured windows.

A pure function of the windows so far. It starts with one worker per core, which is right if
decoding or rendering is the bottleneck, and changes the setting only for a reason:

* Reads wait, as for a network disk: while a thread waits its core is free, and cores x (time in
  tasks / time not waiting in reads) workers fill the cores.
* Workers idle while the training loop waits: too few batches are in progress to keep all workers
  busy, or to hide a slow one; twice as many are prefetched.
* Workers neither wait in reads nor get their cores (another program or the GIL has them): as many
  as there is CPU time for.

A move is tried for a window, and kept only if the loader becomes faster by GAIN; unless it is SURE,
before and after are measured once more, since other programs come and go. If the training loop
hardly waits, there is nothing to gain: fewer workers would free no core for it, as the images of a
step cost the same whichever thread decodes them. The search ends after MOST_WINDOWS at the latest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

GAIN = 0.08  # a move that gains less is reverted
SURE = 2.0  # a speed-up by this factor is not noise
ENOUGH = 0.02  # share of time that a training loop may wait without any change being needed
LOOKS = 3  # calm windows that settle the search: the first steps may be slow ones
IDLE = 0.1  # share of the workers' time without a task, or waiting in reads, that is worth a move
WORTH = 1.25  # more workers are tried only above this multiple of the current number
STEP = 4  # largest factor on the number of workers in one move
STARVED = 0.6  # smallest share of their cores that unhindered workers get
MOST_WINDOWS = 16


class Setting(NamedTuple):
    workers: int
    prefetch: int  # batches ahead


@dataclass(frozen=True)
class Limits:
    """The range of each number, ends included; both ends are equal if it is fixed."""

    cores: int  # this rank's share
    batch_size: int
    workers: tuple[int, int]
    prefetch: tuple[int, int]

    def clip(self, workers: int, prefetch: int) -> Setting:
        """The nearest setting within the limits, with enough batches for two images per worker."""
        (fewest, most), (least, deepest) = self.workers, self.prefetch
        workers = min(max(workers, fewest), most)
        prefetch = max(prefetch, -(-2 * workers // self.batch_size))
        return Setting(workers, min(max(prefetch, least), deepest))


@dataclass(frozen=True)
class Window:
    """Measurements over part of a second at one setting; seconds are summed over workers."""

    setting: Setting
    seconds: float
    samples: int  # that workers finished
    waited: float  # seconds that the training loop waited
    busy: float  # seconds that workers spent in tasks
    cpu: float  # of these, on a core
    read: float  # of these, in reads

    @property
    def is_calm(self) -> bool:
        """True if the training loop hardly waited."""
        return self.wait_share < ENOUGH

    @property
    def rate(self) -> float:
        return self.samples / self.seconds

    @property
    def wait_share(self) -> float:
        return self.waited / self.seconds

    @property
    def idle(self) -> float:
        """Share of the workers' time without a task."""
        return max(1 - self.busy / (self.setting.workers * self.seconds), 0.0)

    @property
    def blocked(self) -> float:
        """Share of the workers' busy time spent in reads and off the cores."""
        return max(min(self.read, self.busy - self.cpu), 0.0) / max(self.busy, 1e-9)

    @property
    def delivered(self) -> float:
        """CPU time that the workers got, in cores."""
        return self.cpu / self.seconds


@dataclass(frozen=True)
class Decision:
    """The next setting to run; once settled, the final one, with a reason."""

    setting: Setting
    settled: bool = False
    why: str = ""


def decide(windows: Sequence[Window], start: Setting, limits: Limits) -> Decision:
    """The setting to continue with after these windows of a run that began at `start`."""
    if not windows:
        return Decision(limits.clip(*start))
    last = windows[-1]
    if last.is_calm:
        settled = len(windows) >= LOOKS and all(window.is_calm for window in windows[-LOOKS:])
        return Decision(last.setting, settled, _calm(windows[0], last, limits))
    measured = _by_setting(windows)
    first, best = measured[0], _best(measured)
    if len(windows) < MOST_WINDOWS:
        tried = [window.setting for window in windows]
        for setting in _moves(best, limits):
            if setting not in tried:
                return Decision(setting)
        if best is not first and best.rate < SURE * first.rate:
            for setting in (first.setting, best.setting):
                if tried.count(setting) < 2:
                    return Decision(setting)
    reason = _untried(first) if len(measured) == 1 else _reason(first, best, limits)
    return Decision(best.setting, True, reason)


def _by_setting(windows: Sequence[Window]) -> list[Window]:
    """The fastest window of each setting, in the order of trial, without calm ones.

    Other programs on a machine make a window slower, never faster.
    """
    fastest: dict[Setting, Window] = {}
    for window in windows:
        if not window.is_calm:
            before = fastest.setdefault(window.setting, window)
            fastest[window.setting] = max(before, window, key=lambda each: each.rate)
    return list(fastest.values())


def _best(measured: Sequence[Window]) -> Window:
    """The window of the last move that paid off."""
    best = measured[0]
    for window in measured[1:]:
        if window.rate > best.rate * (1 + GAIN):
            best = window
    return best


def _moves(now: Window, limits: Limits) -> Iterator[Setting]:
    """Settings to try, the most promising first."""
    workers, prefetch = now.setting
    wanted = math.ceil(limits.cores / max(1 - now.blocked, 1e-3))
    if now.blocked > IDLE and wanted > WORTH * workers:
        more = min(wanted, STEP * workers)
        yield limits.clip(more, prefetch)
        yield limits.clip(more, 2 * prefetch)  # uneven read times: more workers are not enough
        yield limits.clip(min(wanted, 2 * workers), prefetch)
    if now.idle > IDLE:
        yield limits.clip(workers, 2 * prefetch)
    elif now.blocked < IDLE and now.delivered < STARVED * min(workers, limits.cores):
        yield limits.clip(math.ceil(now.delivered), prefetch)


def _calm(first: Window, last: Window, limits: Limits) -> str:
    reason = f"the training loop waits {last.wait_share:.0%} of the time"
    if last.setting == first.setting:
        return reason
    return f"{reason}, and {first.wait_share:.0%} with {text(first.setting, limits)}"


def _untried(only: Window) -> str:
    busy = f"workers are busy for {1 - only.idle:.0%} of the time"
    return f"{busy}, and reads wait for {only.blocked:.0%} of that: {only.rate:,.0f} images/s"


def _reason(first: Window, best: Window, limits: Limits) -> str:
    """The reason for the best setting, with the measured rates."""
    rates = f"{best.rate:,.0f} images/s"
    if best.setting != first.setting:
        rates += f", and {first.rate:,.0f} with {text(first.setting, limits)}"
    if best.setting.workers > first.setting.workers:
        return f"reads waited for {first.blocked:.0%} of a worker's time: {rates}"
    if best.setting.workers < first.setting.workers:
        return f"workers got the time of {first.delivered:.1f} cores: {rates}"
    if best.setting.prefetch > first.setting.prefetch:
        return f"batches take uneven times: {rates}"
    if best.blocked > 0.5:
        return f"reads wait, and more workers do not make them faster: {rates}"
    return f"nothing else made it faster: {rates}"


def text(setting: Setting, limits: Limits) -> str:
    """A setting as text, without fixed values: `workers=8, prefetch=4`."""
    ranges = {"workers": limits.workers, "prefetch": limits.prefetch}
    return ", ".join(
        f"{name}={getattr(setting, name)}" for name, (low, high) in ranges.items() if low < high
    )
