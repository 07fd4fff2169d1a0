"""Expected hours of a run: all its images divided by images/s measured before.

Measurements come from runs in the same folder that trained the same network on the same views, else
from files that benchmarks/training.py --json wrote to benchmarks/results. Without one there is no
estimate.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError
from patchmill.training import measurements
from patchmill.training.measurements import Measured

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config


@dataclass(frozen=True)
class Expected:
    hours: float | None
    why: str

    def __str__(self) -> str:
        return f"{'unknown' if self.hours is None else duration(self.hours)}: {self.why}"


def expect(config: Config, ranks: int, device: str, overrides: Sequence[str] = ()) -> Expected:
    """Expected hours on this number of ranks of a device.

    `overrides` are those on the command line, quoted in the advice on measuring.
    """
    measured = measurements.nearest(config, ranks, device)
    if measured is None:
        return Expected(None, _advice(config, ranks, device, overrides))
    try:
        images = _images(config)
    except MillError as error:
        return Expected(None, str(error))
    rate = measured.images_per_s * ranks / measured.ranks
    hours = images / rate / 3600
    return Expected(hours, "; ".join(_reasons(config, ranks, measured, images, rate)))


def this_device(config: Config) -> str:
    """Description of the device that the run would train on here."""
    import torch

    from patchmill.training.ranks.distributed import World
    from patchmill.training.runtime import device

    chosen, has_gpu = config.train.device, torch.cuda.is_available()
    if chosen == "auto":
        chosen = "cuda" if has_gpu else "cpu"
    if chosen.startswith("cuda") and not has_gpu:
        return measurements.A_GPU
    return device.describe(World(device=torch.device(chosen)))["machine"]


def steps_per_epoch(config: Config, samples: int | None) -> int:
    """Optimiser steps of an epoch; `samples` is None for streamed shards."""
    if samples is not None:
        return samples // config.train.batch_size
    if config.data.steps is None:
        raise MillError(
            "streamed shards have no known length: set the batches per epoch, as in data.steps=1000"
        )
    if steps := config.data.steps // config.train.accumulate:
        return steps
    raise MillError(
        f"an epoch of data.steps={config.data.steps} batches is less than one step of "
        f"train.accumulate={config.train.accumulate}: accumulate fewer"
    )


def duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    minutes = round(hours * 60)
    return f"{minutes} minute{'s' * (minutes != 1)}" if minutes else "less than a minute"


# ------------------------------------------------------------------------------------------- texts


def _images(config: Config) -> int:
    """Images in all epochs."""
    from patchmill.loaders.sources import open_data

    train = config.train
    if config.data.steps is None:
        samples = open_data(config.data.train).sample_count
    else:
        samples = None  # data.steps is for streams, which need not be opened
    return steps_per_epoch(config, samples) * train.batch_size * train.epochs


def _reasons(
    config: Config, ranks: int, measured: Measured, images: int, rate: float
) -> Iterator[str]:
    yield f"{images:,} images at {rate:,.4g} a second on {measured.device}, as in {measured.what}"
    if measured.ranks != ranks:
        yield (
            f"assumed that {ranks} rank{'s' * (ranks != 1)} and its {measured.ranks} are equally "
            "fast each"
        )
    local, there = config.train.batch_size / ranks, measured.batch_size / measured.ranks
    if local != there:
        yield f"measured with {there:g} images of a rank in a step, not {local:g}"
    if measured.data != config.data.name:
        yield f"measured on {measured.data}, which may load faster or slower"
    yield "evaluations and checkpoints take extra time"


def _advice(config: Config, ranks: int, device: str, overrides: Sequence[str]) -> str:
    """Command that measures one rank of the run."""
    settings = [override for override in overrides if not override.startswith(("name=", "out="))]
    if ranks > 1:
        settings.append(f"train.batch_size={config.train.batch_size // ranks}")
    file = f"benchmarks/results/training-{config.method_name}-{config.data.name}.json"
    command = ["python", "benchmarks/training.py", *settings, "--peers", "", "--json", file]
    return (
        f"nothing like it was measured on {device}; to measure it, in minutes: "
        f"{shlex.join(command)}"
    )
