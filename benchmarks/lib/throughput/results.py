"""Result rows, ratios and notes of the throughput benchmark, from its measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import timing
from patchmill.benchmarks.lib.report import BARE_DECODE, Row
from patchmill.benchmarks.lib.throughput import upper_bounds
from patchmill.benchmarks.lib.throughput.contenders import (
    Contender,
    LoaderContender,
    Measurements,
    Rates,
)
from patchmill.benchmarks.lib.throughput.digest import Digest
from patchmill.benchmarks.lib.throughput.peer_process import PeerProcess
from patchmill.benchmarks.lib.timing import Summary
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe


@dataclass(frozen=True)
class ThroughputRun:
    """All contenders, and their measurements."""

    bounds: Sequence[Contender]
    loader: LoaderContender
    peers: Sequence[Contender]
    measurements: Measurements
    cached: LoaderContender | None = None

    @property
    def loaders(self) -> list[LoaderContender]:
        return [self.loader, *([self.cached] if self.cached else [])]


@dataclass(frozen=True)
class ThroughputResult:
    rows: list[Row]  # the contenders
    stages: list[Row]  # inside the loader
    ratios: dict[str, Summary]
    notes: list[str]  # what peers do differently, and why some are skipped
    digest: Digest  # of the loader's first batches
    pipeline: str  # of the loader
    bare_decoder: str  # the row whose rate is the bare decode
    views_alone: dict[str, float] | None = None
    gpu_mebibytes: dict[str, int] | None = None  # of the whole run
    advice: str = ""  # what would make the loader faster

    @property
    def bottleneck(self) -> Row:
        """The longest stage of the busiest crew."""
        busy: dict[str, float] = {}
        for row in self.stages:
            busy[row.crew] = busy.get(row.crew, 0.0) + row.share
        return max(self.stages, key=lambda row: (busy[row.crew], row.share))

    def details(self) -> dict[str, Any]:
        """JSON entries in addition to the tables."""
        entries = {
            "pipeline": self.pipeline,
            "bare_decode": self.bare_decoder,
            "first_batches": self.digest.as_json(),
            "views_alone": self.views_alone,
            "gpu_mib": self.gpu_mebibytes,
        }
        return {name: value for name, value in entries.items() if value is not None}


def summarise(
    run: ThroughputRun,
    decoders: Sequence[str],
    recipe: Recipe,
    digest: Digest,
    gpu_mebibytes: dict[str, int] | None,
) -> ThroughputResult:
    """Build the result; the fastest of `decoders` (names of bounds) is the bare decode."""
    fastest = _fastest(run.measurements, decoders)
    rates = {BARE_DECODE: run.measurements.rates[fastest], **run.measurements.rates}
    everybody = [*run.bounds, *run.loaders, *run.peers]
    rows = [_row(x, rates, run.measurements) for x in everybody if x.name in rates]
    rivals = {x.name for x in run.peers}
    rows = [replace(x, loader_ratio=_by(rates, x)) if x.name in rivals else x for x in rows]
    if fastest != BARE_DECODE:
        bare = next(row for row in rows if row.name == fastest)
        rows.insert(0, replace(bare, name=BARE_DECODE))
    return ThroughputResult(
        rows,
        _stage_rows(run.loader, rates["loader"]),
        _ratios(rates, run.cached),
        _notes(run, recipe),
        digest,
        run.loader.loader.pipeline.name,
        fastest,
        _views_alone(rates, recipe),
        gpu_mebibytes,
        _advice(run.loader),
    )


def _advice(contender: LoaderContender) -> str:
    """The loader's advice, as if it never waited for the turns of others."""
    stats = contender.loader.stats()
    endless = replace(stats.facts, samples=None)  # the data repeat: their size is not known
    return replace(stats, waited=stats.seconds, idle=0.0, facts=endless).advice


def _fastest(measurements: Measurements, names: Sequence[str]) -> str:
    rates = measurements.rates
    medians = {name: timing.summary(rates[name]).median for name in names if name in rates}
    if not medians:
        reasons = "; ".join(f"{name}: {measurements.failures[name]}" for name in names)
        raise MillError(f"no decoder here decodes these images on the GPU: {reasons}")
    return max(medians, key=lambda name: medians[name])


def _row(contender: Contender, rates: dict[str, Rates], measurements: Measurements) -> Row:
    name = contender.name
    return Row(
        name,
        contender.stage,
        timing.summary(rates[name]),
        contender.workers,
        timing.ratio(rates[name], rates[BARE_DECODE]).median,
        timing.summary(measurements.cores[name]).median,
        measurements.gpu_bytes.get(name, 0) / 2**20,
        decoder=contender.making.decoder,
        antialiased=contender.making.antialiased,
    )


def _by(rates: dict[str, Rates], row: Row) -> float:
    """The loader's rate divided by this one's."""
    return timing.ratio(rates["loader"], rates[row.name]).median


def _stage_rows(loader: LoaderContender, rates: Rates) -> list[Row]:
    """Rate of each stage if its lanes did nothing else, and its share of their time."""
    rows = []
    for name, last in loader.stages_by_turn[-1].items():
        alone = [turn[name].lanes * turn[name].items_per_s for turn in loader.stages_by_turn]
        if all(alone):
            rate, share = timing.summary(alone), timing.ratio(rates, alone).median
            rows.append(Row(f"loader: {name}", name, rate, last.lanes, share, crew=last.crew))
    return rows


def _ratios(rates: dict[str, Rates], cached: Contender | None) -> dict[str, Summary]:
    loader = rates["loader"]
    skipped = {"loader", cached.name if cached else ""}
    others = {name: rate for name, rate in rates.items() if name not in skipped}
    ratios = {f"loader / {name}": timing.ratio(loader, rate) for name, rate in others.items()}
    if cached:
        for name in (BARE_DECODE, "loader"):
            ratios[f"{cached.name} / {name}"] = timing.ratio(rates[cached.name], rates[name])
    return ratios


def _views_alone(rates: dict[str, Rates], recipe: Recipe) -> dict[str, float] | None:
    """Views per second of the renderer alone, and its time as a share of bare decoding's."""
    if upper_bounds.VIEWS_ALONE not in rates:
        return None
    views_per_s = timing.summary(rates[upper_bounds.VIEWS_ALONE]).median * recipe.total
    share = timing.ratio(rates[BARE_DECODE], rates[upper_bounds.VIEWS_ALONE]).median
    return {"views_per_s": round(views_per_s), "share_of_decode_time": round(share, 4)}


def _notes(run: ThroughputRun, recipe: Recipe) -> list[str]:
    """Notes on why some contenders are skipped and what the peers do differently."""
    failures = run.measurements.failures
    names = [x.name for x in (*run.bounds, *run.peers)]
    skipped = [f"{name} is skipped: {failures[name]}" for name in names if name in failures]
    ran = [x for x in run.peers if x.name not in failures]
    notes = {x.name: peers.note(x.name, recipe) for x in ran}
    remarks = [x.remark for x in ran if isinstance(x, PeerProcess)]
    return skipped + [f"{name} {note}" for name, note in notes.items() if note] + remarks
