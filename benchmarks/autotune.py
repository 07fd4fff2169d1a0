"""Compare an autotuned loader with fixed defaults, on unmodified data and on slow disks.

    python benchmarks/autotune.py [--data DIR|scenes:N] [--recipe 'dino(local_crops=6)']
        [--batch-size 32] [--seconds 4] [--rounds 5] [--json FILE]

A slow disk is a source that sleeps before each read; `uneven` sleeps rarely but long. The loop
consumes batches as fast as they arrive. Tuning ends before measurement starts; its duration is
reported.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import machine, report, timing
from patchmill.benchmarks.lib.sample import Sample
from patchmill.benchmarks.lib.throughput.contenders import BatchContender
from patchmill.loaders import build
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.loaders.loader import Loader
from patchmill.loaders.sources import open_source

IMAGES, LENGTH = 256, 1_000_000
WAIT_S, LONG_S, SELDOM = 0.02, 0.1, 20  # one of SELDOM reads is long on an uneven disk
TIMEOUT_S = 60.0  # for a loader to settle
DISKS: dict[str, Callable[[int], float]] = {
    "as it is": lambda index: 0.0,
    "20 ms a read": lambda index: WAIT_S,
    "uneven": lambda index: 0.0 if index % SELDOM else LONG_S,
}


class SlowDisk:
    """A sample whose reads sleep first, using no core and without holding the GIL."""

    def __init__(self, sample: Sample, name: str) -> None:
        self._sample, self._wait = sample, DISKS[name]
        self.name, self.fingerprint = name, f"{sample.fingerprint}-{name}"
        self.classes: list[str] = []
        self.labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._sample)

    def read(self, index: int) -> bytes:
        if wait := self._wait(index):
            time.sleep(wait)
        return self._sample.encoded[index % len(self._sample.encoded)]

    def where(self, index: int) -> str:
        return self._sample.where(index)


def main(argv: Sequence[str] | None = None) -> None:
    settings = _settings(argv)
    torch.set_num_threads(1)
    sample = Sample(open_source(settings["data"]), IMAGES).repeated(LENGTH)
    rows = []
    with track("measuring", len(DISKS) * settings["rounds"]) as advance:
        for disk in DISKS:
            rows.append({"name": disk, **measure(SlowDisk(sample, disk), settings, advance)})
    print(f"{machine.cpu()}, {machine.cores()} cores; {settings['recipe']}; images/s\n")
    for row in rows:
        print(f"{row['name']:<14}{row['fixed']:>9,.0f} fixed{row['auto']:>9,.0f} auto", end="")
        print(f"   {row['ratio']:.2f} times, after {row['settled_s']:.1f} s: {row['chosen']}")
    if settings["json"]:
        path = settings.pop("json")
        report.write_json(path, settings | {"rows": rows})


def measure(
    source: SlowDisk, settings: dict[str, Any], advance: Callable[[int], None]
) -> dict[str, Any]:
    """Interleaved rates of a fixed and a tuned loader, the tuned settings, and the time to tune."""
    recipe, batch_size = settings["recipe"], settings["batch_size"]
    fixed = build(source, recipe, batch_size)
    tuned = build(source, recipe, batch_size, workers="auto", prefetch="auto")
    with contextlib.closing(fixed), contextlib.closing(tuned):
        chosen, seconds = _settle(tuned)
        contenders = {"fixed": _contender(fixed), "auto": _contender(tuned)}
        for contender in contenders.values():
            contender.open()

        def turn(contender: BatchContender) -> float:
            timing.wait_until_idle()
            return contender.measure(settings["seconds"])

        turns = {name: lambda one=one: turn(one) for name, one in contenders.items()}
        rates: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(settings["rounds"]):
            for name, values in timing.interleave(turns, 1).items():
                rates[name] += values
            advance(1)
        for contender in contenders.values():
            contender.close()
    ratio = timing.ratio(rates["auto"], rates["fixed"])
    row: dict[str, Any] = {
        name: round(timing.summary(each).median, 1) for name, each in rates.items()
    }
    row |= {"ratio": round(ratio.median, 3), "ratio_low": round(ratio.low, 3)}
    return row | {
        "ratio_high": round(ratio.high, 3),
        "settled_s": round(seconds, 1),
        "chosen": chosen,
    }


def _settle(loader: Loader) -> tuple[str, float]:
    """Consume batches until the loader logs its choice; return that line and the seconds."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("patchmill")
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    began = time.perf_counter()
    try:
        for _ in loader:
            if said := [line for line in lines if ", because " in line and "prefetch=" in line]:
                return said[0], time.perf_counter() - began
            if time.perf_counter() - began > TIMEOUT_S:
                break
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
    raise MillError("the loader did not settle: is the machine busy with something else?")


def _contender(loader: Loader) -> BatchContender:
    def endless() -> peers.Batches:
        while True:
            yield from loader

    pipeline = loader.pipeline
    return BatchContender(
        "loader", endless, loader.batch_size, pipeline.workers, ahead=pipeline.prefetch + 1
    )


def _settings(argv: Sequence[str] | None) -> dict[str, Any]:
    parser = report.Parser("autotune", __doc__)
    parser.add_argument("--data", default=f"scenes:{IMAGES}", help="a folder, or scenes:N")
    parser.add_argument("--recipe", default="dino(local_crops=6)", help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    settings = vars(parser.parse_args(argv))
    for name in ("batch_size", "seconds", "rounds"):
        if not settings[name] > 0:
            raise MillError(f"--{name.replace('_', '-')} must be above 0, not {settings[name]}")
    report.check_writable(settings["json"])
    return settings


if __name__ == "__main__":
    run_command(main)
