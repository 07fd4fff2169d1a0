"""Advice on a loader's speed: the stage that sets the pace, and the settings that would move it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchmill.loaders.stats import Stats

IDLE = 0.5  # share of the workers' time without a task, above which their stages are not to blame
SMALL_S = 200e-6  # worker seconds per image, below which the interpreter's overhead dominates
WORTH = 1.25  # smallest factor of more workers that is worth advising
MOST_WORKERS = 64
LARGE_SIDE = 640  # pixels, above which smaller files are worth advising
MARGIN = 1.05  # of a cache's size, for images larger than those seen
MEMORY_SHARE = 0.8  # of the free memory that a cache of all images may take
DEVICE_SHARE = 0.5  # of the free memory of a GPU, which the network needs as well

Names = Mapping[str, str]  # of settings whose names differ from those in `loaders.build`


@dataclass(frozen=True)
class Facts:
    """Facts about a loader's data, settings and machine that advice depends on."""

    pipeline: str = "threads"
    device: str = "cpu"
    cores: int = 1  # this rank's share
    prefetch: int = 2
    samples: int | None = None  # None: a stream
    image_bytes: float = 0.0  # mean size of the decoded images seen; 0: none yet
    single_files: bool = False  # each image is a file of its own
    painted: bool = False  # reading computes the image, as with scenes
    gpu: bool = False  # the machine has a GPU
    free_bytes: int | None = None  # of memory; None: unknown
    device_bytes: int | None = None  # free memory of the GPU that renders the views, if any


def sentence(stats: Stats, names: Names | None = None) -> str:
    """Name the bottleneck and the settings that help; `names` are those of a command line."""
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
        what, remedies = "the interpreter's overhead per image sets the pace", _for_small
    else:
        what, remedies = _STAGES.get((stage, crew)) or _STAGES[stage, ""]
    settings = _Settings(names or {})
    chosen = [remedy for remedy in remedies(stats, settings) if remedy]
    return f"{what}; what helps: {_listed(chosen)}"


class _Settings:
    """Writes settings as the user does: `workers=8`, or `train.workers=8` as an override."""

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
    ("mask", ""): ("reading masks sets the pace", _for_mask),
    ("plan", ""): ("planning sets the pace", _for_plan),
    ("render", ""): ("rendering sets the pace", _for_render),
    ("render", "gpu"): ("rendering on the GPU sets the pace", _for_gpu_render),
    ("upload", ""): ("uploading images sets the pace", _for_upload),
    ("extra", ""): ("the recipe's own operations set the pace", _for_extra),
}


# -------------------------------------------------------------------------------------- remedies


def _image_seconds(stats: Stats) -> float:
    """Seconds a worker spends on one image, over all of its stages."""
    stages = [stage for stage in stats.stages.values() if stage.crew == "workers"]
    items = max(stage.items for stage in stages)
    return sum(stage.seconds for stage in stages) / max(items, 1)


def _more_workers(stats: Stats, setting: _Settings) -> str:
    """Advise enough workers to keep the cores busy while reads wait, if that is many more."""
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
    """Advise a cache of all decoded images; empty for a stream, or if its size is unknown."""
    facts, cache = stats.facts, stats.cache
    if cache is not None and not cache.full:
        filling = cache.images < cache.samples
        return "the next epoch, which finds these images in the cache" if filling else ""
    if not facts.samples or not facts.image_bytes:
        return ""
    if _fits_device(facts):
        return _cache(stats, setting, "device")
    fits = facts.samples * facts.image_bytes <= MEMORY_SHARE * (facts.free_bytes or 0)
    return _cache(stats, setting, "ram" if fits else "disk:FOLDER")


def _fits_device(facts: Facts) -> bool:
    """True if all decoded images fit on the GPU that renders the views."""
    needed = (facts.samples or 0) * facts.image_bytes
    return 0 < needed <= DEVICE_SHARE * (facts.device_bytes or 0)


def _cache(stats: Stats, setting: _Settings, place: str) -> str:
    size = _size((stats.facts.samples or 0) * stats.facts.image_bytes * MARGIN)
    return f"{setting('cache', f'{place}:{size}')} for all decoded images"


def _on_gpu(stats: Stats, setting: _Settings, pipeline: str) -> str:
    """Advise decoding or rendering on a GPU, if there is one that is not used for it."""
    facts = stats.facts
    if facts.device == "cpu":
        return setting("device", "cuda") if facts.gpu else ""
    return setting("pipeline", pipeline) if pipeline and facts.pipeline != pipeline else ""


def _smaller(stats: Stats) -> str:
    large = stats.facts.image_bytes > 3 * LARGE_SIDE**2
    return "smaller files (patchmill prepare --max-side 512)" if large else ""


def _size(needed: float) -> str:
    """Format a size for `cache`, rounded up to two digits."""
    for unit, power in (("MB", 6), ("GB", 9), ("TB", 12)):
        number = needed / 10**power
        if number < 1000 or unit == "TB":
            digits = 1 if number < 10 and unit != "MB" else 0
            rounded = math.ceil(number * 10**digits) / 10**digits
            return f"{rounded:g}{unit}"
    raise AssertionError


def _listed(remedies: list[str]) -> str:
    *first, last = remedies
    return f"{', '.join(first)}, or {last}" if first else last
