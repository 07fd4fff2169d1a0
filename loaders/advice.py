"""Advice on a loader's speed: the stage that sets the pace, and the settings that would move it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchmill.loaders.stats import Stats

IDLE = 0.5  # share of the workers' time without a task, from which their stages are not to blame
SMALL_S = 200e-6  # of a worker for an image, below which the interpreter's own work counts
WORTH = 1.25  # times as many workers, or more, are worth advising
MOST_WORKERS = 64
LARGE_SIDE = 640  # pixels, from which smaller files are worth advising
SPARE = 1.05  # of a cache, for images larger than those seen
ROOM = 0.8  # share of the free memory that a cache of all images may take
DEVICE_ROOM = 0.5  # the same of a GPU, which the network needs as well

Names = Mapping[str, str]  # of settings, where they are not called as in `loaders.build`


@dataclass(frozen=True)
class Facts:
    """The data and settings of a loader, as far as advice depends on them."""

    pipeline: str = "threads"
    device: str = "cpu"
    cores: int = 1  # this rank's share
    prefetch: int = 2
    samples: int | None = None  # None: a stream
    image_bytes: float = 0.0  # of a decoded image, the mean of those seen; 0: none yet
    single_files: bool = False  # each image is a file
    painted: bool = False  # reads compute, as of scenes
    gpu: bool = False  # the machine has one
    free_bytes: int | None = None  # memory; None: not known
    device_bytes: int | None = None  # free memory of the GPU that makes the views, if one does


def sentence(stats: Stats, names: Names | None = None) -> str:
    """Stage and settings in one sentence; `names` are those of a command line."""
    stage = stats.bottleneck
    if stage == "training loop":
        return "the training loop sets the pace: nothing to gain in the loader"
    if not any(each.items for each in stats.stages.values()):
        return "no batch has been made yet"
    crew = stats.stages[stage].crew
    remedies: Remedies
    if crew == "workers" and stats.idle > IDLE:
        what, remedies = "workers wait for something to do", _for_idle
    elif crew == "workers" and _image_seconds(stats) < SMALL_S and stats.workers > 1:
        what, remedies = "the interpreter's work for each image sets the pace", _for_small
    else:
        what, remedies = _STAGES.get((stage, crew)) or _STAGES[stage, ""]
    settings = _Settings(names or {})
    chosen = [remedy for remedy in remedies(stats, settings) if remedy]
    return f"{what}; what helps: {_listed(chosen)}"


class _Settings:
    """Settings as the user writes them: `workers=8`, or `train.workers=8` on a command line."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __call__(self, name: str, value: Any) -> str:
        text = value if self._names or not isinstance(value, str) else f'"{value}"'
        return f"{self._names.get(name, name)}={text}"


Remedies = Callable[["Stats", _Settings], list[str]]


def _for_read(stats: Stats, setting: _Settings) -> list[str]:
    facts = stats.facts
    if facts.painted:
        return [_cached(stats, setting), "scenes painted once (patchmill prepare)", _CORES]
    return [
        _more_workers(stats, setting),
        "shards instead of single files (patchmill prepare)" if facts.single_files else "",
        _cached(stats, setting),
        "a copy on a local disk",
    ]


def _for_decode(stats: Stats, setting: _Settings) -> list[str]:
    return [_cached(stats, setting), _on_gpu(stats, setting, "dali"), _smaller(stats), _CORES]


def _for_dali(stats: Stats, setting: _Settings) -> list[str]:
    return [_cached(stats, setting), _smaller(stats), _CORES]


def _for_render(stats: Stats, setting: _Settings) -> list[str]:
    return [_on_gpu(stats, setting, ""), "fewer or smaller views", _CORES]


def _for_gpu_render(stats: Stats, setting: _Settings) -> list[str]:
    return ["fewer or smaller views"]


def _for_upload(stats: Stats, setting: _Settings) -> list[str]:
    cache = stats.cache
    elsewhere = cache is None or cache.place != "device"
    kept = _cache(stats, setting, "device") if elsewhere and _fits_device(stats.facts) else ""
    return [kept, _on_gpu(stats, setting, "dali"), _smaller(stats) or "smaller images"]


def _for_extra(stats: Stats, setting: _Settings) -> list[str]:
    return [_on_gpu(stats, setting, ""), "fewer of the recipe's own operations (extra)"]


def _for_mask(stats: Stats, setting: _Settings) -> list[str]:
    return ["a file of masks (patchmill masks)", _CORES]


def _for_plan(stats: Stats, setting: _Settings) -> list[str]:
    return ["fewer views", _CORES]


def _for_inspect(stats: Stats, setting: _Settings) -> list[str]:
    return ["plain JPEGs, which DALI decodes", setting("pipeline", "threads"), _CORES]


def _for_idle(stats: Stats, setting: _Settings) -> list[str]:
    more = f"{setting('prefetch', 2 * stats.facts.prefetch)} or {setting('prefetch', 'auto')}"
    if stats.facts.samples is None:
        return ["shards that arrive faster, from a copy near this machine", more]
    return [more]


def _for_small(stats: Stats, setting: _Settings) -> list[str]:
    return [_cached(stats, setting), setting("workers", max(stats.workers // 2, 1))]


_CORES = "more cores"
_STAGES: Mapping[tuple[str, str], tuple[str, Remedies]] = {
    ("read", ""): ("reading sets the pace", _for_read),
    ("decode", ""): ("decoding sets the pace", _for_decode),
    ("decode", "dali"): ("DALI's decoding sets the pace", _for_dali),
    ("inspect", ""): ("decoding what DALI does not sets the pace", _for_inspect),
    ("mask", ""): ("reading of masks sets the pace", _for_mask),
    ("plan", ""): ("planning sets the pace", _for_plan),
    ("render", ""): ("rendering sets the pace", _for_render),
    ("render", "gpu"): ("rendering on the GPU sets the pace", _for_gpu_render),
    ("upload", ""): ("the upload of images sets the pace", _for_upload),
    ("extra", ""): ("the recipe's own operations set the pace", _for_extra),
}


# -------------------------------------------------------------------------------------- remedies


def _image_seconds(stats: Stats) -> float:
    """Seconds of a worker for one image, in all of its stages."""
    stages = [stage for stage in stats.stages.values() if stage.crew == "workers"]
    items = max(stage.items for stage in stages)
    return sum(stage.seconds for stage in stages) / max(items, 1)


def _more_workers(stats: Stats, setting: _Settings) -> str:
    """A number of workers that keeps the cores busy while reads wait, if that is more."""
    if stats.facts.pipeline == "ffcv":
        return ""
    stages = [stage for stage in stats.stages.values() if stage.crew == "workers"]
    total, reading = sum(stage.seconds for stage in stages), stats.stages["read"].seconds
    wanted = math.ceil(stats.facts.cores * total / max(total - reading, total / 100))
    wanted = min(wanted, max(MOST_WORKERS, stats.facts.cores))
    if wanted < WORTH * stats.workers:
        return ""
    return f"{setting('workers', wanted)} or {setting('workers', 'auto')}"


def _cached(stats: Stats, setting: _Settings) -> str:
    """A cache of all decoded images, with its size where that is known; empty for a stream."""
    facts, cache = stats.facts, stats.cache
    if cache is not None and not cache.full:
        filling = cache.images < cache.samples
        return "the next epoch, which finds these images in the cache" if filling else ""
    if not facts.samples or not facts.image_bytes:
        return ""
    if _fits_device(facts):
        return _cache(stats, setting, "device")
    fits = facts.samples * facts.image_bytes <= ROOM * (facts.free_bytes or 0)
    return _cache(stats, setting, "ram" if fits else "disk:FOLDER")


def _fits_device(facts: Facts) -> bool:
    """True if all decoded images fit on the GPU that makes the views."""
    needed = (facts.samples or 0) * facts.image_bytes
    return 0 < needed <= DEVICE_ROOM * (facts.device_bytes or 0)


def _cache(stats: Stats, setting: _Settings, place: str) -> str:
    size = _size((stats.facts.samples or 0) * stats.facts.image_bytes * SPARE)
    return f"{setting('cache', f'{place}:{size}')} for all decoded images"


def _on_gpu(stats: Stats, setting: _Settings, pipeline: str) -> str:
    """Decoding or rendering on a GPU, where there is one that is not used for it."""
    facts = stats.facts
    if facts.device == "cpu":
        return setting("device", "cuda") if facts.gpu else ""
    return setting("pipeline", pipeline) if pipeline and facts.pipeline != pipeline else ""


def _smaller(stats: Stats) -> str:
    large = stats.facts.image_bytes > 3 * LARGE_SIDE**2
    return "smaller files (patchmill prepare --max-side 512)" if large else ""


def _size(needed: float) -> str:
    """A size with two digits, rounded up, as `cache` reads it."""
    for unit, power in (("MB", 6), ("GB", 9), ("TB", 12)):
        number = needed / 10**power
        if number < 1000 or unit == "TB":
            digits = 1 if number < 10 and unit != "MB" else 0
            rounded = math.ceil(number * 10**digits) / 10**digits
            return f"{rounded:g}{unit}"
    raise AssertionError


def _listed(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)}, or {last}" if first else last
