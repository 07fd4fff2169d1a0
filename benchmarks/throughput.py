"""How many images a second: bare decoding, decoding and views, the whole loader, and its peers.

    python benchmarks/throughput.py [--data DIR|scenes:N] [--recipe 'dino(local_crops=6)']
        [--device cpu|cuda] [--pipeline auto|threads|dali] [--workers N]
        [--peers torchvision,dali,...|all] [--json FILE] [--plot FILE.png]

All contenders work on the same real images, in turns, for several rounds; nobody works in another's
turn. Compilation, the start of workers and what lay ready in queues are not counted. On a GPU, bare
decoding is the fastest decoder that there is for it, the views alone are made of images that are on
it already, and all views come out as bfloat16, channels first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import contenders, digest, lineup, machine, report, results
from patchmill.benchmarks.lib.contenders import Contender, OurLoader, Raced, Threads
from patchmill.benchmarks.lib.report import BARE, Parser, Result
from patchmill.benchmarks.lib.sample import Sample, describe, is_plain
from patchmill.loaders import build
from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import open_source

MOST_IMAGES = 1000
LONG_TURN = 4.0  # seconds
FEWEST_ROUNDS, MOST_ROUNDS = 3, 9


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
        return min(max(int(self.seconds / LONG_TURN), FEWEST_ROUNDS), MOST_ROUNDS)

    @property
    def turn(self) -> float:
        return self.seconds / self.rounds


def main() -> None:
    settings = _settings()
    report.check_writable(settings.json, settings.plot)
    if settings.plot:
        report.check_chart()
    views = load_recipe(settings.recipe)
    images = Sample(open_source(settings.data), MOST_IMAGES, plain=settings.on_gpu)
    about = describe(images.encoded)
    result = measure(images, views, settings)
    report.show(result, _headline(images, about, views, settings), about["kilobytes"] / 1e3)
    if settings.json:
        report.write_json(settings.json, _as_json(result, about, settings))
    if settings.plot:
        title = f"{views.name}: {_sizes(views)}; {_workers(settings.workers)}; {machine.cpu()}"
        report.draw_chart(settings.plot, result.rows, title)


# ------------------------------------------------------------------------------------ the measuring


def measure(images: Sample, views: Recipe, settings: Settings) -> Result:
    torch.set_num_threads(1)  # for everybody: it is the workers that run in parallel
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        loader = _loader(images, views, settings, Path(folder), settings.dtype)
        if settings.on_gpu:
            torch.cuda.set_device(torch.device(settings.device).index or 0)
            torch.cuda.reset_peak_memory_stats()
        floors, decoders = _floors(images, views, settings)
        theirs = _theirs(images, views, settings, Path(folder))
        sure = [x for x in floors if isinstance(x, Threads)]
        others = [x for x in floors if x not in sure]  # may be missing here, like a peer
        raced = contenders.race([*sure, loader], [*theirs, *others], settings.rounds, settings.turn)
        memory = _gpu_memory(raced) if settings.on_gpu else None
        first = digest.of(_loader(images, views, settings, Path(folder), torch.float32).loader)
    found = results.Race(floors, loader, theirs, raced)
    return results.result(found, decoders, views, first, memory)


def _loader(
    images: Sample, views: Recipe, settings: Settings, folder: Path, dtype: torch.dtype
) -> OurLoader:
    loader = build(
        images,
        views,
        settings.batch_size,
        device=settings.device,
        pipeline=settings.pipeline,
        dtype=dtype,
        workers=settings.workers,
        ledger=folder / "bad.jsonl",
    )
    return OurLoader(loader, settings.batch_size, settings.workers)


def _floors(
    images: Sample, views: Recipe, settings: Settings
) -> tuple[list[Contender], Sequence[str]]:
    """What a loader could reach at best, and which of them may be called the bare decode."""
    encoded, workers, batch = images.encoded, settings.workers, settings.batch_size
    device = torch.device(settings.device)
    if settings.on_gpu:
        floors = lineup.on_gpu(encoded, views, workers, batch, device, settings.dtype)
        return floors, lineup.GPU_DECODERS
    floors = lineup.on_cpu(encoded, views, workers)
    if settings.pipeline.startswith("dali"):
        plain = [data for data in encoded if is_plain(data)]
        floors.insert(1, lineup.by_dali(plain, workers, batch, device))
    return floors, [BARE]


def _theirs(images: Sample, views: Recipe, settings: Settings, folder: Path) -> list[Contender]:
    paths = images.write_files(folder) if settings.peers else []
    batch, workers, device = settings.batch_size, settings.workers, settings.device
    return [
        contenders.their_loader(name, paths, views, batch, workers, device)
        for name in settings.peers
    ]


def _gpu_memory(raced: Raced) -> dict[str, int]:
    """In MiB: of torch's at most, and by whomever on this GPU when all had had their turns."""
    return {
        "reserved_by_torch_at_most": torch.cuda.max_memory_reserved() >> 20,
        "taken_on_the_device": raced.taken >> 20,
    }


# --------------------------------------------------------------------------------------- the report


def _headline(
    images: Sample, about: dict[str, Any], views: Recipe, settings: Settings
) -> list[str]:
    where = [machine.gpu(settings.device)] if settings.on_gpu else []
    kind = "JPEGs" if about["jpegs"] == about["count"] else f"images ({about['jpegs']} JPEGs)"
    why = "are no plain JPEGs" if settings.on_gpu else "cannot be decoded"
    left_out = [f"{images.bad} that {why} are left out"] if images.bad else []
    return [
        *where,
        f"{machine.cpu()}, {machine.cores()} cores; {_workers(settings.workers)} for each",
        f"{about['count']} real {kind} of {images.name}, warm in the page cache",
        "on average {width} x {height} pixels and {kilobytes:.0f} kB".format(**about),
        *left_out,
        f"{views.name}: {_sizes(views)}; batches of {settings.batch_size}",
        f"in turns: medians and middle halves of {settings.rounds} rounds of {settings.turn:.1f} s",
        "not counted: compilation, start-up, and what lay ready in queues",
    ]


def _sizes(views: Recipe) -> str:
    return " + ".join(f"{group.total} x {group.size}" for group in views.views)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _as_json(result: Result, about: dict[str, Any], settings: Settings) -> dict[str, Any]:
    asked = ("data", "recipe", "device", "batch_size")
    return {
        **{name: value for name, value in asdict(settings).items() if name in asked},
        "images": about,
        "rounds": settings.rounds,
        "seconds_per_round": round(settings.turn, 2),
        "rows": [row.as_json() for row in (*result.rows, *result.stages)],
        "ratios": {name: round(ratio.median, 3) for name, ratio in result.ratios.items()},
        "bottleneck": result.bottleneck.stage,
        **result.details(),
        "notes": result.notes,
    }


# -------------------------------------------------------------------------------------- the command


def _settings() -> Settings:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="scenes:256", help="a folder, or scenes:N (%(default)s)")
    parser.add_argument("--recipe", default="dino", help="a preset with its knobs, or a YAML file")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--pipeline", default="auto", help="the loader's: auto, threads or dali")
    parser.add_argument(
        "--workers", type=int, default=machine.cores(), help="for each contender (all cores)"
    )
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="of measuring each contender (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, help="64 on a CPU, 256 on a GPU")
    parser.add_argument("--peers", default="", help=f"{', '.join(peers.NAMES)}, or all")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the results as bars")
    given = vars(parser.parse_args())
    if given["batch_size"] is None:
        given["batch_size"] = 256 if given["device"].startswith("cuda") else 64
    for name in ("workers", "seconds", "batch_size"):
        if not given[name] > 0:
            raise MillError(f"--{name.replace('_', '-')} must be above 0, not {given[name]}")
    return Settings(**given | {"peers": _peers(given["peers"])})


def _peers(text: str) -> list[str]:
    """In the order of `peers.NAMES`: torchvision forks, so it starts before there are threads."""
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    if wanted == ["all"]:
        return list(peers.NAMES)
    for name in wanted:
        if name not in peers.NAMES:
            raise MillError(
                f"there is no peer {name!r}{calls.nearest(name, dict.fromkeys(peers.NAMES))}"
            )
    return [name for name in peers.NAMES if name in wanted]


if __name__ == "__main__":
    run_command(main)
