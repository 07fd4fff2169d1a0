"""From turns to what is reported: rows, shares, ratios and remarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import lineup, timing
from patchmill.benchmarks.lib.contenders import Contender, OurLoader, Raced, Turns
from patchmill.benchmarks.lib.digest import Digest
from patchmill.benchmarks.lib.report import BARE, Result, Row
from patchmill.benchmarks.lib.timing import Summary
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe


@dataclass(frozen=True)
class Race:
    """Who took part, and how it ended."""

    floors: Sequence[Contender]  # what a loader could reach at best
    loader: OurLoader
    theirs: Sequence[Contender]
    raced: Raced


def result(
    race: Race,
    decoders: Sequence[str],
    recipe: Recipe,
    digest: Digest,
    gpu_mebibytes: dict[str, int] | None,
) -> Result:
    """The fastest of `decoders`, names of floors, is the bare decode."""
    bare = _best(race.raced, decoders)
    rates = {BARE: race.raced.rates[bare], **race.raced.rates}
    everybody = [*race.floors, race.loader, *race.theirs]
    rows = [_row(x, rates, race.raced) for x in everybody if x.name in rates]
    if bare != BARE:
        rows.insert(0, replace(next(row for row in rows if row.name == bare), name=BARE))
    return Result(
        rows,
        _stages(race.loader, rates["loader"]),
        _ratios(rates),
        _notes(race, recipe),
        digest,
        race.loader.loader.pipeline.name,
        bare,
        _views(rates, recipe),
        gpu_mebibytes,
    )


def _best(raced: Raced, names: Sequence[str]) -> str:
    medians = {
        name: timing.summary(raced.rates[name]).median for name in names if name in raced.rates
    }
    if not medians:
        reasons = "; ".join(f"{name}: {raced.failed[name]}" for name in names)
        raise MillError(f"nothing here decodes these images on the GPU: {reasons}")
    return max(medians, key=lambda name: medians[name])


def _row(contender: Contender, rates: dict[str, Turns], raced: Raced) -> Row:
    name = contender.name
    return Row(
        name,
        contender.stage,
        timing.summary(rates[name]),
        contender.workers,
        timing.ratio(rates[name], rates[BARE]).median,
        timing.summary(raced.cores[name]).median,
        raced.gpu.get(name, 0) / 2**20,
    )


def _stages(loader: OurLoader, rates: Turns) -> list[Row]:
    """Each stage as if its lanes did nothing else, and its share of their time."""
    rows = []
    for name, last in loader.turns[-1].items():
        alone = [turn[name].lanes * turn[name].items_per_s for turn in loader.turns]
        if all(alone):
            rate, share = timing.summary(alone), timing.ratio(rates, alone).median
            rows.append(Row(f"loader: {name}", name, rate, last.lanes, share, crew=last.crew))
    return rows


def _ratios(rates: dict[str, Turns]) -> dict[str, Summary]:
    loader = rates["loader"]
    others = {name: rate for name, rate in rates.items() if name != "loader"}
    return {f"loader / {name}": timing.ratio(loader, rate) for name, rate in others.items()}


def _views(rates: dict[str, Turns], views: Recipe) -> dict[str, float] | None:
    """Of the renderer alone, where it was measured: views per second, and of decoding's time."""
    if lineup.VIEWS not in rates:
        return None
    alone = timing.summary(rates[lineup.VIEWS]).median
    share = timing.ratio(rates[BARE], rates[lineup.VIEWS]).median
    return {"views_per_s": round(alone * views.total), "share_of_decode_time": round(share, 4)}


def _notes(race: Race, recipe: Recipe) -> list[str]:
    """Why some are left out, or what peers do differently."""
    failed = race.raced.failed
    names = [x.name for x in (*race.floors, *race.theirs)]
    left_out = [f"{name} is left out: {failed[name]}" for name in names if name in failed]
    ran = {x.name: peers.note(x.name, recipe) for x in race.theirs if x.name not in failed}
    return left_out + [f"{name} {note}" for name, note in ran.items() if note]
