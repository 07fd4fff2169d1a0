"""How many images a second: bare decoding, decoding and views, the whole loader, and its peers.

    python benchmarks/throughput.py [--data DIR|scenes:N] [--recipe 'dino(local_crops=6)']
        [--workers N] [--peers torchvision,dali,ffcv|all] [--json FILE] [--plot FILE.png]

All contenders work on the same real images, in turns, for several rounds; nobody works in another's
turn. Compilation, the start of workers and what lay ready in queues are not counted.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from patchmill.benchmarks import contenders, machine, peers, report, timing
from patchmill.benchmarks.contenders import Contender, OurLoader, Threads, Turns
from patchmill.benchmarks.report import Parser, Result, Row
from patchmill.benchmarks.sample import Sample, describe
from patchmill.benchmarks.timing import Summary
from patchmill.loaders import build, call, recipe
from patchmill.loaders.decode import Decoder
from patchmill.loaders.errors import MillError, run_command
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources import open_source
from patchmill.loaders.stats import STAGES

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
    views = recipe.load(settings.recipe)
    images = Sample(open_source(settings.data), MOST_IMAGES)
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
    import torch

    torch.set_num_threads(1)  # for everybody: it is the workers that run in parallel
    workers = settings.workers
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        make_views = partial(contenders.Views, views)
        loader = _loader(images, views, settings, Path(folder))
        ours: list[Contender] = [
            Threads("bare decode", "decode", Decoder, images.encoded, workers),
            Threads("decode + views", "decode + views", make_views, images.encoded, workers),
            loader,
        ]
        theirs = _theirs(images, views, settings, Path(folder))
        rates, failed = contenders.race(ours, theirs, settings.rounds, settings.turn)
    bare = rates["bare decode"]
    rows = [
        Row(x.name, x.stage, timing.summary(rate), workers, timing.ratio(rate, bare).median)
        for x in (*ours, *theirs)
        if (rate := rates.get(x.name))
    ]
    notes = _notes(settings.peers, failed)
    return Result(rows, _stages(loader, rates["loader"]), _ratios(rates), notes)


def _loader(images: Sample, views: Recipe, settings: Settings, folder: Path) -> OurLoader:
    loader = build(
        images,
        views,
        settings.batch_size,
        device=settings.device,
        pipeline=settings.pipeline,
        workers=settings.workers,
        ledger=folder / "bad.jsonl",
    )
    return OurLoader(loader, settings.batch_size, settings.workers)


def _theirs(images: Sample, views: Recipe, settings: Settings, folder: Path) -> list[Contender]:
    paths = images.write_files(folder) if settings.peers else []
    batch, workers = settings.batch_size, settings.workers
    return [contenders.their_loader(x, paths, views, batch, workers) for x in settings.peers]


def _stages(loader: OurLoader, rates: Turns) -> list[Row]:
    """Each stage as if all workers did nothing else, and its share of the workers' time."""
    rows = []
    for stage in STAGES:
        alone = [loader.workers * turn[stage].items_per_s for turn in loader.turns]
        share = timing.ratio(rates, alone).median
        rows.append(Row(f"loader: {stage}", stage, timing.summary(alone), loader.workers, share))
    return rows


def _ratios(rates: dict[str, Turns]) -> dict[str, Summary]:
    loader = rates["loader"]
    others = {name: rate for name, rate in rates.items() if name != "loader"}
    return {f"loader / {name}": timing.ratio(loader, rate) for name, rate in others.items()}


def _notes(names: list[str], failed: dict[str, str]) -> list[str]:
    """Why peers are left out, or what they do differently."""
    left_out = [f"{name} is left out: {failed[name]}" for name in names if name in failed]
    ran = {name: peers.load(name).NOTE for name in names if name not in failed}
    return left_out + [f"{name} {note}" for name, note in ran.items() if note]


# --------------------------------------------------------------------------------------- the report


def _headline(
    images: Sample, about: dict[str, Any], views: Recipe, settings: Settings
) -> list[str]:
    kind = "JPEGs" if about["jpegs"] == about["count"] else f"images ({about['jpegs']} JPEGs)"
    left_out = [f"{images.bad} that cannot be decoded are left out"] if images.bad else []
    return [
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
        "notes": result.notes,
    }


# -------------------------------------------------------------------------------------- the command


def _settings() -> Settings:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="scenes:256", help="a folder, or scenes:N (%(default)s)")
    parser.add_argument("--recipe", default="dino", help="a preset with its knobs, or a YAML file")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--pipeline", default="auto", help="the loader's pipeline")
    parser.add_argument(
        "--workers", type=int, default=machine.cores(), help="for each contender (all cores)"
    )
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="of measuring each contender (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--peers", default="", help=f"{', '.join(peers.NAMES)}, or all")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the results as bars")
    given = vars(parser.parse_args())
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
                f"there is no peer {name!r}{call.nearest(name, dict.fromkeys(peers.NAMES))}"
            )
    return [name for name in peers.NAMES if name in wanted]


if __name__ == "__main__":
    run_command(main)
