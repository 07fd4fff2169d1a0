"""Measure images per second of bare decoding, decoding and views, the loader, and its peers.

    python benchmarks/throughput.py [--data DIR|scenes:N] [--recipe 'dino(local_crops=6)']
        [--device cpu|cuda] [--pipeline auto|threads|dali] [--workers N]
        [--peers torchvision,dali,...|all] [--peer-python albumentationsx=ENV/bin/python]
        [--cache ram:4GB] [--json FILE] [--plot FILE.png]

All contenders process the same real images, in turns, for several rounds; during a turn the others
are idle. Compilation, worker start-up and batches queued beforehand are not counted. With --cache,
the loader is measured again after an epoch that fills its cache. A peer of --peer-python runs in
that interpreter, for packages that need their own environment. On a GPU, bare decoding is the
fastest installed GPU decoder, `views alone` renders images already on the GPU, and all views are
bfloat16, channels first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import machine, report
from patchmill.benchmarks.lib.report import BARE_DECODE, Parser
from patchmill.benchmarks.lib.sample import Sample, describe, is_plain_jpeg
from patchmill.benchmarks.lib.throughput import contenders, digest, results, table, upper_bounds
from patchmill.benchmarks.lib.throughput.batches import peer_contender
from patchmill.benchmarks.lib.throughput.contenders import (
    CachedContender,
    Contender,
    LoaderContender,
    Measurements,
    ThreadedContender,
)
from patchmill.benchmarks.lib.throughput.peer_process import PeerProcess
from patchmill.benchmarks.lib.throughput.results import ThroughputResult
from patchmill.loaders import build
from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.loader import Loader
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import open_source

MAX_IMAGES = 1000
CACHED_SAMPLES = 2048  # of an epoch from the cache; repeated images are cached separately
TURN_SECONDS = 4.0  # if this leaves time for enough rounds
MIN_ROUNDS, MAX_ROUNDS = 3, 9


@dataclass(frozen=True)
class Settings:
    data: str
    recipe: str
    device: str
    pipeline: str
    workers: int
    seconds: float
    batch_size: int
    peers: list[str]
    peer_python: dict[str, str]  # peer -> interpreter
    cache: str | None
    json: str | None
    plot: str | None

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.on_gpu else torch.float32

    @property
    def rounds(self) -> int:
        return min(max(int(self.seconds / TURN_SECONDS), MIN_ROUNDS), MAX_ROUNDS)

    @property
    def turn_seconds(self) -> float:
        return self.seconds / self.rounds


def main(argv: Sequence[str] | None = None) -> None:
    settings = _settings(argv)
    report.check_writable(settings.json, settings.plot)
    if settings.plot:
        report.check_chart()
    recipe = load_recipe(settings.recipe)
    images = Sample(open_source(settings.data), MAX_IMAGES, plain=settings.on_gpu)
    about = describe(images.encoded)
    result = measure(images, recipe, settings)
    table.show(result, _headline(images, about, recipe, settings))
    if settings.json:
        report.write_json(settings.json, _as_json(result, about, settings))
    if settings.plot:
        title = f"{recipe.name}: {_sizes(recipe)}; {_workers(settings.workers)}; {machine.cpu()}"
        report.draw_chart(settings.plot, result.rows, title)


# ---------------------------------------------------------------------------------------- measuring


def measure(images: Sample, recipe: Recipe, settings: Settings) -> ThroughputResult:
    torch.set_num_threads(1)  # for all contenders, whose workers run in parallel
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        loader = _loader(images, recipe, settings, Path(folder), settings.dtype)
        loader_contender = LoaderContender(loader, settings.batch_size, settings.workers)
        cached = _cached(images, recipe, settings, Path(folder)) if settings.cache else None
        if settings.on_gpu:
            torch.cuda.set_device(torch.device(settings.device).index or 0)
            torch.cuda.reset_peak_memory_stats()
        bounds, decoders = _upper_bounds(images, recipe, settings)
        peer_loaders = _peer_contenders(images, recipe, settings, Path(folder))
        required = [x for x in bounds if isinstance(x, ThreadedContender)]
        optional = [x for x in bounds if x not in required]  # their library may be missing
        measurements = contenders.measure_in_turns(
            [*required, loader_contender, *([cached] if cached else [])],
            [*peer_loaders, *optional],
            settings.rounds,
            settings.turn_seconds,
        )
        memory = _gpu_memory(measurements) if settings.on_gpu else None
        float_loader = _loader(images, recipe, settings, Path(folder), torch.float32)
        first = digest.first_batches(float_loader)
    run = results.ThroughputRun(bounds, loader_contender, peer_loaders, measurements, cached)
    return results.summarise(run, decoders, recipe, first, memory)


def _loader(
    images: Sample,
    recipe: Recipe,
    settings: Settings,
    folder: Path,
    dtype: torch.dtype,
    **more: Any,
) -> Loader:
    return build(
        images,
        recipe,
        settings.batch_size,
        device=settings.device,
        pipeline=settings.pipeline,
        dtype=dtype,
        workers=settings.workers,
        ledger=folder / "bad.jsonl",
        **more,
    )


def _cached(images: Sample, recipe: Recipe, settings: Settings, folder: Path) -> CachedContender:
    samples = images.repeated(CACHED_SAMPLES)
    loader = _loader(samples, recipe, settings, folder, settings.dtype, cache=settings.cache)
    return CachedContender(loader, settings.batch_size, settings.workers)


def _upper_bounds(
    images: Sample, recipe: Recipe, settings: Settings
) -> tuple[list[Contender], Sequence[str]]:
    """Upper bounds on the loader's rate, and the names of those that count as bare decoding."""
    encoded, workers, batch = images.encoded, settings.workers, settings.batch_size
    device = torch.device(settings.device)
    if settings.on_gpu:
        bounds = upper_bounds.on_gpu(encoded, recipe, workers, batch, device, settings.dtype)
        return bounds, upper_bounds.GPU_DECODERS
    bounds = upper_bounds.on_cpu(encoded, recipe, workers)
    if settings.pipeline.startswith("dali"):
        plain = [data for data in encoded if is_plain_jpeg(data)]
        bounds.insert(1, upper_bounds.dali_decode(plain, workers, batch, device))
    return bounds, [BARE_DECODE]


def _peer_contenders(
    images: Sample, recipe: Recipe, settings: Settings, folder: Path
) -> list[Contender]:
    paths = images.write_files(folder) if settings.peers else []
    batch, workers, device = settings.batch_size, settings.workers, settings.device
    return [
        PeerProcess(name, python, paths, recipe, batch, workers, device)
        if (python := settings.peer_python.get(name))
        else peer_contender(name, paths, recipe, batch, workers, device)
        for name in settings.peers
    ]


def _gpu_memory(measurements: Measurements) -> dict[str, int]:
    """MiB of torch's peak, and of all processes on this GPU after the last turn."""
    return {
        "reserved_by_torch_at_most": torch.cuda.max_memory_reserved() >> 20,
        "taken_on_the_device": measurements.gpu_bytes_total >> 20,
    }


# --------------------------------------------------------------------------------------- the report


def _headline(
    images: Sample, about: dict[str, Any], recipe: Recipe, settings: Settings
) -> list[str]:
    gpu = [machine.gpu(settings.device)] if settings.on_gpu else []
    kind = "JPEGs" if about["jpegs"] == about["count"] else f"images ({about['jpegs']} JPEGs)"
    why = "are not plain JPEGs" if settings.on_gpu else "cannot be decoded"
    skipped = [f"{images.skipped} that {why} are skipped"] if images.skipped else []
    return [
        *gpu,
        f"{machine.cpu()}, {machine.cores()} cores; {_workers(settings.workers)} per contender",
        f"{about['count']} real {kind} of {images.name}, warm in the page cache",
        "on average {width} x {height} pixels and {kilobytes:.0f} kB".format(**about),
        *skipped,
        f"{recipe.name}: {_sizes(recipe)}; batches of {settings.batch_size}",
        f"medians of {settings.rounds} interleaved rounds of {settings.turn_seconds:.1f} s",
        "spread: between quartiles, as a share of the median",
        "not counted: compilation, start-up, and batches queued beforehand",
    ]


def _sizes(recipe: Recipe) -> str:
    return " + ".join(f"{group.total} x {group.size}" for group in recipe.views)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _as_json(result: ThroughputResult, about: dict[str, Any], settings: Settings) -> dict[str, Any]:
    quoted = ("data", "recipe", "device", "batch_size", *(["cache"] if settings.cache else []))
    return {
        **{name: value for name, value in asdict(settings).items() if name in quoted},
        "images": about,
        "rounds": settings.rounds,
        "seconds_per_round": round(settings.turn_seconds, 2),
        "rows": [row.as_json() for row in (*result.rows, *result.stages)],
        "ratios": {name: round(ratio.median, 3) for name, ratio in result.ratios.items()},
        "bottleneck": result.bottleneck.stage,
        **result.details(),
        "notes": result.notes,
    }


# -------------------------------------------------------------------------------------- the command


def _settings(argv: Sequence[str] | None) -> Settings:
    parser = Parser("throughput", __doc__)
    parser.add_argument("--data", default="scenes:256", help="a folder, or scenes:N (%(default)s)")
    parser.add_argument("--recipe", default="dino", help="a preset with its knobs, or a YAML file")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--pipeline", default="auto", help="the loader's: auto, threads or dali")
    parser.add_argument(
        "--workers",
        type=int,
        default=machine.cores(),
        help="workers per contender (default: all cores)",
    )
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="measured seconds per contender (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, help="64 on a CPU, 256 on a GPU")
    parser.add_argument("--peers", default="", help=f"{', '.join(peers.NAMES)}, or all")
    parser.add_argument(
        "--peer-python",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="run this peer by another Python interpreter; may be repeated",
    )
    parser.add_argument(
        "--cache", metavar="SPEC", help="measure a filled cache too, such as ram:4GB"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the results as bars")
    arguments = vars(parser.parse_args(argv))
    if arguments["batch_size"] is None:
        arguments["batch_size"] = 256 if arguments["device"].startswith("cuda") else 64
    for name in ("workers", "seconds", "batch_size"):
        if not arguments[name] > 0:
            raise MillError(f"--{name.replace('_', '-')} must be above 0, not {arguments[name]}")
    pythons = _peer_pythons(arguments["peer_python"])
    chosen = ",".join([arguments["peers"], *pythons])
    return Settings(**arguments | {"peers": _peers(chosen), "peer_python": pythons})


def _peer_pythons(options: Sequence[str]) -> dict[str, str]:
    pythons = {}
    for option in options:
        name, equals, path = option.partition("=")
        if not (name and equals and path):
            raise MillError(f"--peer-python is NAME=PATH, as albumentationsx=PATH, not {option!r}")
        pythons[name.strip()] = str(Path(path).expanduser())
    return pythons


def _peers(text: str) -> list[str]:
    """Chosen peers, in the order of `peers.NAMES`."""
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    chosen = [*chosen, *peers.NAMES] if "all" in chosen else chosen
    for name in chosen:
        if name not in (*peers.NAMES, "all"):
            raise MillError(
                f"there is no peer {name!r}{calls.nearest(name, dict.fromkeys(peers.NAMES))}"
            )
    return [name for name in peers.NAMES if name in chosen]


if __name__ == "__main__":
    run_command(main)
