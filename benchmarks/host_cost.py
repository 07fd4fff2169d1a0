"""Measure how long a GPU's loader holds the GIL per image. It needs no GPU.

    python benchmarks/host_cost.py [--data DIR|scenes:N] [--copies N] [--pipeline dali|threads]
        [--recipe dino] [--batch-size 256] [--workers 8] [--rounds N] [--json FILE]

Only one of a loader's threads runs Python at a time, so a million divided by these microseconds is
an upper bound on its images per second. Workers gather: they read images, parse their headers (or
decode them) and plan. The feeder passes each batch through DALI and prepares the renderer's
launches. Here both run one after the other in one thread, with everything in the page cache, in the
chunks that a crew of this many workers cuts on an idle machine. Gathering is a chunk's time minus
the time in calls that release the lock (reads, checksums, decoding, compiled code), over the
fastest tenth of the chunks, since other programs can only add to it. Feeding is the CPU time of its
thread, including DALI's calls. A stub replaces the decoder: it returns black images of the right
sizes in host memory. Launches are prepared, not made.
"""

from __future__ import annotations

import functools
import importlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console

from patchmill.benchmarks.lib import machine, report, timing
from patchmill.benchmarks.lib.report import Parser
from patchmill.benchmarks.lib.timing import Summary
from patchmill.loaders import build
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.pipelines import chunks
from patchmill.loaders.prepare import make_data
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.sources import Source, open_source

FORMATS = ("folder", "shards", "beton")
PIPELINES = ("dali", "threads")
SAMPLE_NS = 50_000  # a worker's time per sample, by which batches are cut
FASTEST = 0.1  # of the chunks
FIRST, LATER, FEEDING, TOTAL = "gathering, first epoch", "gathering", "feeding", "in all"

# Functions that release the lock, if they exist.
RELEASING = (
    ("os", ("open", "read", "pread", "fstat", "close")),
    ("zlib", ("crc32",)),
    ("simplejpeg", ("decode_jpeg",)),
    ("patchmill.loaders.plan.draw", ("draw_slots",)),
    ("patchmill.loaders.sources.whole_files", ("_read_files",)),
    ("patchmill.loaders.sources.ranges", ("_read_ranges", "_crc32_of_all")),
    ("patchmill.loaders.decode.jpeg_scan", ("scan",)),
)


@dataclass(frozen=True)
class Settings:
    data: str
    copies: int
    pipeline: str
    recipe: str
    batch_size: int
    workers: int
    rounds: int
    json: str | None


@dataclass
class Released:
    """Wall time of this thread's calls that release the lock, since it was set to 0."""

    nanoseconds: int = 0
    inside: bool = False

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time added."""

        @functools.wraps(call, updated=())
        def counted(*arguments: Any, **settings: Any) -> Any:
            if self.inside:
                return call(*arguments, **settings)
            self.inside, began = True, time.perf_counter_ns()
            try:
                return call(*arguments, **settings)
            finally:
                self.nanoseconds += time.perf_counter_ns() - began
                self.inside = False

        return counted


def main(argv: Sequence[str] | None = None) -> None:
    settings = _settings(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder, ExitStack() as patches:
        released = Released()
        sources = _write(settings, Path(folder))
        for module, names in RELEASING:
            patches.enter_context(_counted(released, module, names))
        patches.enter_context(_without_launches())
        values: dict[str, list[float]] = {}
        for number in range(-1, settings.rounds):  # the first is a warm-up
            for kind, source in sources.items():
                measured = _turn(settings, released, source, Path(folder) / "bad.jsonl")
                for name, value in measured.items():
                    values.setdefault(f"{kind}: {name}", []).append(value)
                    if number < 0:
                        values[f"{kind}: {name}"].clear()
    rows = {name: timing.summary(figures) for name, figures in values.items()}
    _show(rows, settings)
    if settings.json:
        about = {name: getattr(settings, name) for name in Settings.__annotations__}
        content = {
            **{name: value for name, value in about.items() if name != "json"},
            "rows": [_as_json(name, row) for name, row in rows.items()],
        }
        report.write_json(settings.json, content)


# --------------------------------------------------------------------------------- what is measured


def _write(settings: Settings, folder: Path) -> dict[str, Source]:
    """Write the images in each of FORMATS, each image `copies` times."""
    source, files = open_source(settings.data), folder / "folder"
    for copy in range(settings.copies):
        (files / f"copy{copy:04d}").mkdir(parents=True)
        for id in range(len(source)):
            (files / f"copy{copy:04d}" / f"{id:08d}.jpg").write_bytes(source.read(id))
    paths = {"folder": files, "shards": folder / "shards", "beton": folder / "all.beton"}
    for name in {"shards", "beton"}.intersection(FORMATS):
        make_data.make(open_source(files), paths[name], Options(format=name), machine.cores())
    return {name: open_source(paths[name]) for name in FORMATS}


def _turn(settings: Settings, released: Released, source: Source, ledger: Path) -> dict[str, float]:
    """µs per image by part of the work, in a new pipeline."""
    pipeline, size = _pipeline(settings, source, ledger), settings.batch_size
    ids = np.random.default_rng(0).permutation(len(source))
    batches = [ids[start : start + size] for start in range(0, len(ids) - size + 1, size)]
    if len(batches) < 2:
        raise MillError(f"{len(source)} images are less than two batches of {size}: raise --copies")
    parts = _parts(pipeline, [(epoch, some) for epoch in range(2) for some in batches])
    turn = functools.partial(_epoch, parts, released, pipeline._workers[0], settings.workers)
    turn(1)  # warm-up
    first, later = turn(len(batches) - 1), turn(len(batches))
    pipeline.clear()
    return {FIRST: first[0], LATER: later[0], FEEDING: later[1], TOTAL: sum(later)}


def _epoch(
    parts: Parts, released: Released, worker: Any, workers: int, batches: int
) -> tuple[float, float]:
    """µs per image of this many further batches: gathering and feeding."""
    jobs = list(islice(parts.jobs, batches))
    gathering = [_gather(parts, released, worker, job, workers) for job in jobs]
    began = time.thread_time_ns()
    parts.feeder(Finite([*jobs]), SimpleQueue())
    feeding = (time.thread_time_ns() - began) / sum(map(len, jobs)) / 1e3
    for job in jobs:
        if error := job.ready.wait():
            raise error
    return float(np.quantile(np.concatenate(gathering), FASTEST)), feeding


@dataclass(frozen=True)
class Parts:
    """Parts of a pipeline, as passed to its crew."""

    step: Callable[[Any, Any, range], None]
    jobs: Iterator[Any]
    feeder: Callable[[Any, Any], None]


class Finite:
    """The feeder's queue of loaded jobs; it ends when no work is left."""

    allowed = 1 << 30  # jobs to finish by now

    def __init__(self, jobs: list[Any]) -> None:
        self._jobs, self.over = jobs, False

    def empty(self) -> bool:
        return not self._jobs

    def get(self) -> Any:
        return self._jobs.pop(0) if self._jobs else None

    def receive(self, wait: bool) -> list[Any]:
        self.over |= wait and self.empty()
        return [] if self.empty() else [self.get()]


def _parts(pipeline: Any, batches: Sequence[tuple[int, np.ndarray]]) -> Parts:
    """Parts of an iteration that has not started."""

    def keep(step: Any, jobs: Any, hand_over: Any, feeder: Any, *_: Any) -> Parts:
        return Parts(step, jobs, feeder)

    with mock.patch.object(pipeline, "_start", keep):
        return pipeline.run(iter(batches))


def _gather(parts: Parts, released: Released, worker: Any, job: Any, workers: int) -> list[float]:
    """µs per image holding the lock, by chunk."""
    least = getattr(job, "least_chunk", 1)
    more = {"least": least} if least > 1 else {}
    chunk = chunks.chunk_size(len(job), workers, SAMPLE_NS, **more)
    job.chunks = [range(at, min(at + chunk, len(job))) for at in range(0, len(job), chunk)]
    found = []
    for slots in job.chunks:
        released.nanoseconds, began = 0, time.perf_counter_ns()
        parts.step(worker, job, slots)
        job.loaded.count_down(items=len(slots))
        held = time.perf_counter_ns() - began - released.nanoseconds
        found.append(held / len(slots) / 1e3)
    return found


def _pipeline(settings: Settings, source: Source, ledger: Path) -> Any:
    """The pipeline for a GPU, on the CPU."""
    recipe = settings.recipe
    loader = build(source, recipe, settings.batch_size, workers=1, device="cpu", ledger=ledger)
    config = replace(loader.pipeline._config, workers=1)  # type: ignore[attr-defined]
    if settings.pipeline == "threads":
        from patchmill.loaders.pipelines.gpu.pipeline import GpuThreadsPipeline

        return GpuThreadsPipeline(config)
    from patchmill.loaders.pipelines.dali import pipeline

    with mock.patch.object(pipeline, "CpuBackend", pipeline.GpuBackend), _without_decoding():
        return pipeline.DaliPipeline(config)


@contextmanager
def _without_decoding() -> Iterator[None]:
    """Within this context, new DALI decoders return black images of the right sizes."""
    try:
        from nvidia.dali import fn, types
    except ImportError:
        raise MillError("DALI is not installed: pip install 'patchmill[dali]'") from None

    def black(encoded: Any, **_: Any) -> Any:
        shape = fn.cast(fn.peek_image_shape(encoded), dtype=types.INT32)
        return fn.zeros(shape=shape, dtype=types.UINT8)

    with mock.patch.object(fn.decoders, "image", black):
        yield


@contextmanager
def _without_launches() -> Iterator[None]:
    from patchmill.kernels.views.gpu.launch import Launch

    with mock.patch.object(Launch, "__call__", lambda launch: None):
        yield


@contextmanager
def _counted(released: Released, module: str, names: Sequence[str]) -> Iterator[None]:
    """Count calls of these functions, if they exist, as time without the lock."""
    with ExitStack() as patches:
        try:
            found = importlib.import_module(module)
        except ImportError:
            found = None
        for name in names:
            if call := getattr(found, name, None):
                patches.enter_context(mock.patch.object(found, name, released.timed(call)))
        yield


# --------------------------------------------------------------------------------------- the report


def _as_json(name: str, row: Summary) -> dict[str, Any]:
    return {
        "name": name,
        "us_per_image": round(row.median, 2),
        "spread": round(row.spread, 3),
        "most_images_per_s": round(1e6 / row.median),
    }


def _show(rows: dict[str, Summary], settings: Settings) -> None:
    console = Console(highlight=False)
    console.print(
        f"{machine.cpu()}; pipeline {settings.pipeline}, {settings.recipe}, batches of "
        f"{settings.batch_size} cut for {settings.workers} workers\n",
        style="dim",
        markup=False,
    )
    table = report.new_table("under the lock", "µs per image", "low to high", "images/s at most")
    for name, one in rows.items():
        most = f"{1e6 / one.median:,.0f}" if name.endswith(TOTAL) else ""
        bounds = f"{one.low:.1f} to {one.high:.1f}"
        table.add_row(name, f"[bold]{one.median:.1f}[/]", bounds, most)
    console.print(table)


def _settings(argv: Sequence[str] | None) -> Settings:
    parser = Parser("host-cost", __doc__)
    parser.add_argument("--data", default="scenes(count=64, size=400)", help="JPEGs (%(default)s)")
    parser.add_argument("--copies", type=int, default=20, help="copies of each image (%(default)s)")
    parser.add_argument("--pipeline", choices=PIPELINES, default="dali", help="(%(default)s)")
    parser.add_argument("--recipe", default="dino", help="a preset with its knobs (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=256, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=8, help="of the crew (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    arguments = vars(parser.parse_args(argv))
    for option in ("copies", "batch_size", "workers", "rounds"):
        if not arguments[option] > 0:
            flag = option.replace("_", "-")
            raise MillError(f"--{flag} must be above 0, not {arguments[option]}")
    report.check_writable(arguments["json"])
    return Settings(**arguments)


if __name__ == "__main__":
    run_command(main)
