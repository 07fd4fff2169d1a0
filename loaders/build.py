"""`build`: make a loader from user input, checking all arguments before reading any image."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patchmill.loaders.common import ranks
from patchmill.loaders.common.errors import MillError, memory_errors
from patchmill.loaders.common.threads import available_cores
from patchmill.loaders.decode.bad_image import MAX_PIXELS, MOST_PIXELS
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe

if TYPE_CHECKING:
    import torch

    from patchmill.loaders.copypaste.backgrounds import BackgroundData, Backgrounds
    from patchmill.loaders.copypaste.masks import Masks
    from patchmill.loaders.ledger import Ledger
    from patchmill.loaders.loader import Loader
    from patchmill.loaders.operations.mix import Mix
    from patchmill.loaders.sources import DataSet, SimpleSource, Source
    from patchmill.loaders.sources.stream.source import StreamSource
    from patchmill.loaders.sources.stream.stream import Stream

MOST_WORKERS = 1024
AUTO = "auto"  # tune workers or prefetch to the machine


def build(
    data: str | Path | Sequence[Any] | SimpleSource | StreamSource | Stream | DataSet,
    recipe: Recipe | str | Path,
    batch_size: int,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    pipeline: str = "auto",
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    workers: int | Literal["auto"] | None = None,
    drop_last: bool = True,
    prefetch: int | Literal["auto"] = 2,
    ledger: str | Path | None = None,
    steps: int | None = None,
    masks: str | Path | None = None,
    backgrounds: BackgroundData | None = None,
    mix: Mix | None = None,
    cache: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Loader:
    """Build a loader that yields batches of the recipe's views of `data`.

    data: a folder, `scenes:10000`, shards, a .beton, a zip, an LMDB, Parquet files, a list of
        images (a file, paths, or pairs of path and label), a stream of shards, a data set with
        `__len__` and `__getitem__`, or a source; docs/formats.md lists them all
    recipe: a Recipe, a preset such as `dino(local_crops=6)`, or a YAML file
    batch_size: images per batch and rank
    device: device on which views are rendered and batches are delivered
    pipeline: "threads" (decode in CPU threads), "dali" (decode with DALI, on the GPU if that is the
        device; "dali(hardware=0.5)" sets the share of the GPU's JPEG unit), "ffcv" (run by FFCV,
        from a .beton) or "auto" (DALI for a GPU if it is installed, else threads)
    dtype: of the views: torch.float32 (default), bfloat16, float16, or uint8 (not normalised)
    rank, world_size: of this process, among those that share the data; by default taken from
        torch.distributed if it is initialised, else from torchrun or SLURM
    workers: number of threads; by default this rank's share of the machine's cores; "auto" starts
        with that and settles on the fastest number within the first seconds
    prefetch: batches prepared ahead; "auto" tunes the number, up to 16 and within the memory
        that loaders/pipelines/tuning/iteration.py allows
    ledger: file that lists bad samples; by default in patchmill's cache folder
    steps: batches per epoch, for streamed shards only
    masks: file of masks for copy-paste, if not the one that `prepare masks` wrote for the data
    backgrounds: images (as for `data`) to paste on, if not those of the data itself
    mix: mixup and CutMix of each batch, which make its labels soft: operations.Mix(classes=1000)
    cache: where to keep decoded images for later epochs, and how large: "ram:32GB" or
        "disk:FOLDER:200GB", shared by all processes on this machine that read the same data, or
        "device:20GB", in this process's GPU memory, so that each image is uploaded only once
    max_pixels: limit for one image; a larger one is a bad sample, which the ledger lists
    """
    arguments = dict(locals())

    import torch

    from patchmill.loaders.decoded.on_device import device_capacity
    from patchmill.loaders.decoded.opening import open_store
    from patchmill.loaders.ledger import Ledger
    from patchmill.loaders.loader import Loader
    from patchmill.loaders.operations.mix import checked_mix
    from patchmill.loaders.order.schedule import Schedule, ShuffledSchedule, StreamSchedule
    from patchmill.loaders.pipelines.config import PipelineConfig
    from patchmill.loaders.pipelines.extra import open_extra
    from patchmill.loaders.pipelines.memory import SMALLER
    from patchmill.loaders.pipelines.spec import choose, log_once
    from patchmill.loaders.plan import draw
    from patchmill.loaders.sources import open_data
    from patchmill.loaders.sources.stream.source import StreamSource

    recipe = load_recipe(recipe)
    batch_size = _checked_int("batch_size", batch_size, 1)
    own = _checked_rank(rank, world_size)
    if own.size > 1 and own.origin != ranks.GIVEN:
        log_once(f"{own}, set by {own.origin}: reads its share of the data")
    seed = _checked_int("seed", seed, 0, 2**64 - 1)
    auto = frozenset(
        name for name, value in (("workers", workers), ("prefetch", prefetch)) if value == AUTO
    )
    prefetch = 2 if prefetch == AUTO else _checked_int("prefetch", prefetch, 1, or_auto=True)
    steps = None if steps is None else _checked_int("steps", steps, 1)
    workers = default_workers() if workers is None or workers == AUTO else workers
    workers = _checked_int("workers", workers, 1, MOST_WORKERS, or_auto=True)
    for name, value in (("channels_last", channels_last), ("drop_last", drop_last)):
        if not isinstance(value, bool):
            raise MillError(f"{name} must be True or False, not {value!r}")
    max_pixels = checked_max_pixels(max_pixels)
    choice = choose(pipeline)
    dtype = _checked_dtype(torch.float32 if dtype is None else dtype)
    device = checked_device(device)
    source = open_data(data)
    store = open_store(cache, source)
    schedule: Schedule
    if isinstance(source, StreamSource):
        _check_stream(source, own, steps)
        source.stream.seed = seed
        schedule = StreamSchedule(source, batch_size, own.rank, own.size, drop_last, steps)
        max_batch, count = batch_size, 0
    else:
        if steps is not None:
            raise MillError(f"steps is for streamed shards: {source.name} has a known length")
        _check_size(source, batch_size, own.size, drop_last)
        samples = source if store is None else store
        schedule = ShuffledSchedule(samples, seed, batch_size, own.rank, own.size, drop_last)
        max_batch, count = min(batch_size, len(source)), len(source)
    opened_masks = masks_for(masks, source, recipe)
    opened_ledger = Ledger(ledger_path(ledger, source, own.rank), count)
    opened_backgrounds = backgrounds_for(backgrounds, recipe, opened_ledger, seed)
    config = PipelineConfig(
        source=source,
        ledger=opened_ledger,
        seed=seed,
        laws=draw.law_table(recipe),
        targets=draw.targets(recipe),
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        workers=workers,
        prefetch=prefetch,
        max_batch=max_batch,
        max_pixels=max_pixels,
        masks=opened_masks,
        backgrounds=opened_backgrounds,
        extra=open_extra(recipe, seed, dtype, device, checked_mix(mix, source)),
        decoded=store,
        device_cache=device_capacity(cache, device),
        auto=auto,
    )
    with memory_errors("the loader's workers and batches", SMALLER):
        opened_pipeline = choice.open(config)
    background_source = source if opened_backgrounds is None else opened_backgrounds.source
    return Loader(
        source,
        recipe,
        schedule,
        opened_pipeline,
        seed=seed,
        batch_size=batch_size,
        drop_last=drop_last,
        rank=own,
        device=device.type,
        channels_last=channels_last,
        ledger=opened_ledger,
        rebuild=functools.partial(build, **arguments),
        masks="" if opened_masks is None else opened_masks.fingerprint,
        backgrounds=background_source.fingerprint if recipe.pastes_images else "",
        mix=mix,
        max_pixels=max_pixels,
    )


def default_workers() -> int:
    """This rank's share of the cores that the process may run on."""
    return min(max(available_cores() // ranks.local_size(), 1), MOST_WORKERS)


def _checked_rank(rank: Any, world_size: Any) -> ranks.Rank:
    """The rank and world size, validated; those not given are detected."""
    if world_size is not None:
        world_size = _checked_int("world_size", world_size, 1)
    if rank is not None:
        rank = _checked_int("rank", rank, 0, (world_size or ranks.current().size) - 1)
    return ranks.choose(rank, world_size)


def _checked_int(
    name: str, value: Any, least: int, most: int | None = None, or_auto: bool = False
) -> int:
    """Return `value`, of any integer type, as an int within bounds.

    `or_auto` adds "auto" to the error message.
    """
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    bounds += f", or {AUTO!r}" if or_auto else ""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        raise MillError(f"{name} must be a whole number {bounds}, not {value!r}")
    return number


def checked_max_pixels(max_pixels: Any) -> int:
    return _checked_int("max_pixels", max_pixels, 1, MOST_PIXELS)


def require_samples(source: Source | StreamSource, least: int, batch: str, remedy: str) -> None:
    """Raise a MillError if the source has fewer samples than a batch; streams always pass."""
    count = source.sample_count
    if count is not None and count < least:
        raise MillError(f"{source.name} has {count} samples, fewer than {batch}: {remedy}")


def _check_size(source: Source, batch_size: int, world_size: int, drop_last: bool) -> None:
    count, together = len(source), batch_size * world_size
    if not count:
        raise MillError(f"{source.name} has no samples")
    share = f"{batch_size} x {world_size} ranks" if world_size > 1 else f"{batch_size}"
    if drop_last:
        remedy = "use a smaller batch_size, or drop_last=False"
        require_samples(source, together, f"one global batch of {share}", remedy)
    rest = count % together
    if not drop_last and 0 < rest < world_size:
        raise MillError(
            f"the last batch of {source.name} has {rest} samples for {world_size} ranks, which "
            "would leave some without any: use another batch_size, or drop_last=True"
        )


def _check_stream(source: StreamSource, own: ranks.Rank, steps: int | None) -> None:
    source.stream.shards(0, own.rank, own.size)
    if own.size > 1 and steps is None:
        raise MillError(
            f"streamed shards such as {source.name} have no known length, and {own.size} ranks "
            "need epochs of equal length: set the batches of an epoch, as in steps=1000"
        )


def masks_for(
    path: str | Path | None, source: Source | StreamSource, recipe: Recipe
) -> Masks | None:
    """Open the masks for the recipe's copy-paste; None for a recipe without copy-paste."""
    from patchmill.loaders.copypaste import masks

    if not any(group.paste for group in recipe.views):
        if path is not None:
            raise MillError(f"masks are for copy-paste: the recipe {recipe.name} has none")
        return None
    opened = masks.open_masks(source, path)  # type: ignore[arg-type]  # a stream has masks, too
    if opened is None:
        raise MillError(
            f"the recipe {recipe.name} needs masks for copy-paste, and there are none for "
            f"{source.name}: make them with patchmill masks {source.name}"
        )
    return opened


def backgrounds_for(
    data: BackgroundData | None, recipe: Recipe, ledger: Ledger, seed: int
) -> Backgrounds | None:
    """Open the data set of backgrounds; None unless they are images from other data."""
    from patchmill.loaders.copypaste.backgrounds import Backgrounds, open_backgrounds
    from patchmill.loaders.ledger import Ledger

    source = open_backgrounds(data, recipe)
    if source is None:
        return None
    path = ledger.path.with_name(f"{ledger.path.stem}-backgrounds{ledger.path.suffix}")
    return Backgrounds(source, Ledger(path, len(source)), seed)


def checked_device(device: str | torch.device) -> torch.device:
    import torch

    try:
        parsed = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise MillError(f"device must be 'cpu', 'cuda' or 'cuda:N', not {device!r}") from None
    if parsed.type not in ("cpu", "cuda"):
        raise MillError(f"device must be 'cpu', 'cuda' or 'cuda:N', not {device!r}")
    if parsed.type == "cuda" and not 0 <= (parsed.index or 0) < torch.cuda.device_count():
        raise MillError(
            f"device {str(device)!r} was requested, but torch sees {torch.cuda.device_count()} "
            f"GPUs: {_device_remedy()}"
        )
    if parsed.type == "cuda" and parsed.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return parsed


def _device_remedy() -> str:
    import torch

    if torch.cuda.device_count():
        return "use device='cuda', the current one"
    return "use device='cpu', or install a torch build for your GPU"


def _checked_dtype(dtype: torch.dtype) -> torch.dtype:
    import torch

    choices = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)
    if not isinstance(dtype, torch.dtype) or dtype not in choices:
        raise MillError(f"dtype must be one of {', '.join(map(str, choices))}, not {dtype!r}")
    return dtype


def ledger_path(ledger: str | Path | None, source: Source | StreamSource, rank: int) -> Path:
    from patchmill.loaders.files import cache

    if ledger is None:
        name = re.sub(r"[^\w.-]", "_", source.fingerprint)
        return cache.root() / "ledgers" / f"{name}-rank{rank}.jsonl"
    if not isinstance(ledger, str | Path) or Path(ledger).is_dir():
        raise MillError(f"ledger must be the path of a file, not {str(ledger)!r}")
    return Path(ledger)
