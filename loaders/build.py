"""`build`: from what the user wrote to a loader, with everything checked before the first image."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmill.loaders import recipe as recipes
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe_load import load_recipe

if TYPE_CHECKING:
    import torch

    from patchmill.loaders.copypaste.backgrounds import BackgroundData, Backgrounds
    from patchmill.loaders.copypaste.masks import Masks
    from patchmill.loaders.ledger import Ledger
    from patchmill.loaders.loader import Loader
    from patchmill.loaders.sources import Source
    from patchmill.loaders.sources.stream.source import StreamSource
    from patchmill.loaders.sources.stream.stream import Stream

MOST_WORKERS = 1024


def build(
    data: str | Path | Sequence[str | Path] | Source | Stream,
    recipe: recipes.Recipe | str | Path,
    batch_size: int,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    pipeline: str = "auto",
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    rank: int = 0,
    world_size: int = 1,
    workers: int | None = None,
    drop_last: bool = True,
    prefetch: int = 2,
    ledger: str | Path | None = None,
    steps: int | None = None,
    masks: str | Path | None = None,
    backgrounds: BackgroundData | None = None,
) -> Loader:
    """A loader of `data` (a folder, `scenes:10000` or a source) that gives batches of the views.

    `device` is where the views are made and handed over. `pipeline` is "threads" (CPU threads
    decode), "dali" (DALI does, on the GPU if that is the device; "dali(hardware=0.5)" says how much
    of it the GPU's JPEG unit gets), "ffcv" (FFCV runs a batch, of a .beton), or "auto", which takes
    DALI for a GPU if it is installed.
    `batch_size` is per rank; `dtype` is torch.float32 unless given, or bfloat16, float16 or uint8
    (not normalised); `workers` threads, by default this rank's share of the machine's cores;
    `prefetch` batches are made ahead; bad samples are listed in `ledger`, by default in the cache.
    `steps` is for streamed shards alone: how many batches make an epoch. `masks`, for recipes with
    copy-paste, is the file of masks if it is not the one that `prepare masks` makes for the data;
    `backgrounds` are the images (as for `data`) to paste on where that is not the data itself.
    """
    import torch

    from patchmill.loaders.ledger import Ledger
    from patchmill.loaders.loader import Loader
    from patchmill.loaders.order.schedule import Schedule, Shuffled, Streamed
    from patchmill.loaders.pipelines.config import PipelineConfig
    from patchmill.loaders.pipelines.spec import choose
    from patchmill.loaders.plan import draw
    from patchmill.loaders.sources import open_data
    from patchmill.loaders.sources.stream.source import StreamSource

    recipe = load_recipe(recipe)
    batch_size = _whole("batch_size", batch_size, 1)
    world_size = _whole("world_size", world_size, 1)
    rank = _whole("rank", rank, 0, world_size - 1)
    seed = _whole("seed", seed, 0, 2**64 - 1)
    prefetch = _whole("prefetch", prefetch, 1)
    steps = None if steps is None else _whole("steps", steps, 1)
    workers = default_workers() if workers is None else _whole("workers", workers, 1, MOST_WORKERS)
    for name, value in (("channels_last", channels_last), ("drop_last", drop_last)):
        if not isinstance(value, bool):
            raise MillError(f"{name} must be True or False, not {value!r}")
    choice = choose(pipeline)
    kind, place = _dtype(torch.float32 if dtype is None else dtype), _device(device)
    source = open_data(data)
    schedule: Schedule
    if isinstance(source, StreamSource):
        _check_stream(source, rank, world_size, steps)
        source.stream.seed = seed
        schedule = Streamed(source, batch_size, rank, world_size, drop_last, steps)
        max_batch, count = batch_size, 0
    else:
        if steps is not None:
            raise MillError(f"steps is for streamed shards: {source.name} has an end of its own")
        _check_size(source, batch_size, world_size, drop_last)
        schedule = Shuffled(source, seed, batch_size, rank, world_size, drop_last)
        max_batch, count = min(batch_size, len(source)), len(source)
    shown = _masks(masks, source, recipe)
    bad = Ledger(_ledger_path(ledger, source, rank), count)
    grounds = _grounds(backgrounds, recipe, bad, seed)
    config = PipelineConfig(
        source=source,
        ledger=bad,
        seed=seed,
        laws=draw.laws(recipe),
        targets=draw.targets(recipe),
        device=place,
        dtype=kind,
        channels_last=channels_last,
        workers=workers,
        prefetch=prefetch,
        max_batch=max_batch,
        masks=shown,
        backgrounds=grounds,
    )
    return Loader(
        source,
        recipe,
        schedule,
        choice.open(config),
        seed=seed,
        workers=workers,
        channels_last=channels_last,
        ledger=bad,
        masks="" if shown is None else shown.fingerprint,
        backgrounds=(grounds or config).source.fingerprint if recipe.pastes_images else "",
    )


def default_workers() -> int:
    """This process's share of the cores it may run on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")  # of this machine, as torchrun sets it
    share = (cores or 1) // (int(ranks) if ranks.isdecimal() and int(ranks) else 1)
    return min(max(share, 1), MOST_WORKERS)


def _whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """The number as an int, whatever integer type it came in."""
    span = f"of at least {least}" if most is None else f"from {least} to {most}"
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        raise MillError(f"{name} must be a whole number {span}, not {value!r}")
    return number


def require_samples(source: Source | StreamSource, least: int, batch: str, remedy: str) -> None:
    """Raise a MillError for a source with fewer samples than a batch; streams are not counted."""
    count = source.sample_count
    if count is not None and count < least:
        raise MillError(f"{source.name} has {count} samples, fewer than {batch}: {remedy}")


def _check_size(source: Source, batch_size: int, world_size: int, drop_last: bool) -> None:
    count, together = len(source), batch_size * world_size
    if not count:
        raise MillError(f"{source.name} has no samples")
    share = f"{batch_size} x {world_size} ranks" if world_size > 1 else f"{batch_size}"
    if drop_last:
        remedy = "take a smaller batch_size, or drop_last=False"
        require_samples(source, together, f"one global batch of {share}", remedy)
    rest = count % together
    if not drop_last and 0 < rest < world_size:
        raise MillError(
            f"the last batch of {source.name} has {rest} samples for {world_size} ranks, which "
            "would leave some without any: take another batch_size, or drop_last=True"
        )


def _check_stream(source: StreamSource, rank: int, world_size: int, steps: int | None) -> None:
    source.stream.shards(0, rank, world_size)
    if world_size > 1 and steps is None:
        raise MillError(
            f"how much of {source.name} each of {world_size} ranks will read is not known before "
            "it is read: say how many batches make an epoch, as steps=1000"
        )


def _masks(
    given: str | Path | None, source: Source | StreamSource, recipe: recipes.Recipe
) -> Masks | None:
    """What the recipe's copy-paste goes by; None where it has none."""
    from patchmill.loaders.copypaste import masks

    if not any(group.paste for group in recipe.views):
        if given is not None:
            raise MillError(f"masks are for copy-paste, which the recipe {recipe.name} has none of")
        return None
    found = masks.open_masks(source, given)  # type: ignore[arg-type]  # a stream has masks of its own
    if found is None:
        raise MillError(
            f"the recipe {recipe.name} pastes by masks, and there are none for {source.name}: "
            f"make them, with python -m patchmill.loaders.prepare masks {source.name}"
        )
    return found


def _grounds(
    given: BackgroundData | None, recipe: recipes.Recipe, ledger: Ledger, seed: int
) -> Backgrounds | None:
    """What the recipe pastes on; None where it is the data itself, or it pastes on no images."""
    from patchmill.loaders.copypaste.backgrounds import Backgrounds, open_backgrounds
    from patchmill.loaders.ledger import Ledger

    source = open_backgrounds(given, recipe)
    if source is None:
        return None
    path = ledger.path.with_name(f"{ledger.path.stem}-backgrounds{ledger.path.suffix}")
    return Backgrounds(source, Ledger(path, len(source)), seed)


def _device(device: str | torch.device) -> torch.device:
    import torch

    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise MillError(f"device must be 'cpu', 'cuda' or 'cuda:N', not {device!r}") from None
    if found.type not in ("cpu", "cuda"):
        raise MillError(f"device must be 'cpu', 'cuda' or 'cuda:N', not {device!r}")
    if found.type == "cuda" and not 0 <= (found.index or 0) < torch.cuda.device_count():
        raise MillError(
            f"device {str(device)!r} was asked for, but torch sees {torch.cuda.device_count()} "
            "GPUs: use device='cpu', or install a torch build for your GPU"
        )
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return found


def _dtype(dtype: torch.dtype) -> torch.dtype:
    import torch

    known = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)
    if not isinstance(dtype, torch.dtype) or dtype not in known:
        raise MillError(f"dtype must be one of {', '.join(map(str, known))}, not {dtype!r}")
    return dtype


def _ledger_path(ledger: str | Path | None, source: Source | StreamSource, rank: int) -> Path:
    from patchmill.loaders.common import cache

    if ledger is None:
        name = re.sub(r"[^\w.-]", "_", source.fingerprint)
        return cache.root() / "ledgers" / f"{name}-rank{rank}.jsonl"
    if not isinstance(ledger, str | Path) or Path(ledger).is_dir():
        raise MillError(f"ledger must be the path of a file, not {str(ledger)!r}")
    return Path(ledger)
