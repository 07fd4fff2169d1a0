"""`build`: from what the user wrote to a loader, with everything checked before the first image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmill.loaders import recipe as recipes
from patchmill.loaders.errors import MillError

if TYPE_CHECKING:
    import torch

    from patchmill.loaders.pipelines.threads import Loader
    from patchmill.loaders.sources import Source

PIPELINES = ("auto", "threads")


def build(
    data: str | Path | Source,
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
) -> Loader:
    """A loader of `data` (a folder, `scenes:10000`, or a source) whose batches hold `recipe`'s views.

    `batch_size` is per rank; `dtype` is torch.float32 unless given, or bfloat16, float16 or uint8
    (not normalised); `workers` threads, by default this rank's share of the machine's cores;
    `prefetch` batches are made ahead; bad samples are listed in `ledger`, by default in the cache.
    """
    import torch

    from patchmill.loaders.pipelines.threads import Loader
    from patchmill.loaders.sources import open_source

    recipe = recipes.load(recipe)
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("world_size", world_size, 1),
        ("workers", workers, 1),
        ("prefetch", prefetch, 1),
        ("rank", rank, 0),
        ("seed", seed, 0),
    ):
        _check_whole(name, value, least)
    if rank >= world_size:
        raise MillError(f"rank must be 0 to world_size - 1 = {world_size - 1}, not {rank}")
    if seed >= 2**64:
        raise MillError(f"seed must be below 2**64, not {seed}")
    if pipeline not in PIPELINES:
        raise MillError(f"pipeline must be one of {', '.join(PIPELINES)}, not {pipeline!r}")
    source = open_source(data)
    _check_size(source, batch_size, world_size, drop_last)
    return Loader(
        source,
        recipe,
        batch_size,
        seed=seed,
        device=_device(device),
        dtype=_dtype(dtype or torch.float32),
        channels_last=channels_last,
        rank=rank,
        world_size=world_size,
        workers=workers or default_workers(),
        drop_last=drop_last,
        prefetch=prefetch,
        ledger=_ledger_path(ledger, source, rank),
    )


def default_workers() -> int:
    """This process's share of the cores it may run on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _check_whole(name: str, value: Any, least: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not whole and not (name == "workers" and value is None):
        raise MillError(f"{name} must be a whole number of at least {least}, not {value!r}")


def _check_size(source: Source, batch_size: int, world_size: int, drop_last: bool) -> None:
    count, together = len(source), batch_size * world_size
    share = f"{batch_size} x {world_size} ranks" if world_size > 1 else f"{batch_size}"
    if drop_last and count < together:
        raise MillError(
            f"{source.name} has {count} samples, fewer than one global batch of {share}: "
            "take a smaller batch_size, or drop_last=False"
        )
    rest = count % together
    if not drop_last and 0 < rest < world_size:
        raise MillError(
            f"the last batch of {source.name} has {rest} samples for {world_size} ranks, which would "
            "leave some without any: take another batch_size, or drop_last=True"
        )


def _device(device: str | torch.device) -> torch.device:
    import torch

    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise MillError(f"device must be 'cpu', 'cuda' or 'cuda:N', not {device!r}") from None
    if found.type not in ("cpu", "cuda"):
        raise MillError(f"device must be 'cpu', 'cuda' or 'cuda:N', not {device!r}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise MillError(
            f"device {str(device)!r} was asked for, but torch sees {torch.cuda.device_count()} GPUs: "
            "use device='cpu', or install a torch build for your GPU"
        )
    return found


def _dtype(dtype: torch.dtype) -> torch.dtype:
    import torch

    known = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)
    if dtype not in known:
        raise MillError(f"dtype must be one of {', '.join(map(str, known))}, not {dtype}")
    return dtype


def _ledger_path(ledger: str | Path | None, source: Source, rank: int) -> Path:
    from patchmill.loaders import cache

    if ledger is not None:
        return Path(ledger)
    return cache.root() / "ledgers" / f"{source.fingerprint}-rank{rank}.jsonl"
