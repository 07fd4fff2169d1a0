"""Notes on a run's data, one line each, printed before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import Source, open_data
from patchmill.training import data_splits

if TYPE_CHECKING:
    from patchmill.loaders.sources.stream.source import StreamSource
    from patchmill.training.config.settings import Config

_NOTABLE = 5  # skipped images are reported if they exceed one in this many of an epoch
_NAME_OTHERS = "name labelled test images with data.test=DIR"


def notes(config: Config) -> Iterator[str]:
    """Yield lines on the training images, and on what training can and cannot measure."""
    data = config.data
    train = open_data(data.train)
    yield f"training on {_described(train)}"
    yield from _small_epoch(train, config)
    if not config.evaluate.knn_every:
        return
    if data.test is None:
        yield f"nothing is measured during training, for lack of test images: {_NAME_OTHERS}"
    elif train.sample_count is None and data.bank is None:
        yield "kNN is not measured: streamed images cannot be a bank; name one with data.bank=DIR"
    elif not labelled(config):
        yield from _unlabelled(config)
    elif data_splits.tests_on_training(config):
        yield _on_training_images(train, config)
        yield from _one_class(train)
    else:
        yield from _compared(config)


def labelled(config: Config) -> bool:
    """True if there are labels for kNN and a linear classifier during training."""
    data = config.data
    sources = (data.test or data.train, data.bank or data.train)
    return all(open_data(source).labels is not None for source in sources)


def measurable(config: Config) -> bool:
    """True if there are images to measure on during training."""
    data = config.data
    if not data.test:
        return False
    return all(open_data(d).sample_count is not None for d in (data.test, data.bank or data.train))


def _described(source: Source | StreamSource) -> str:
    """Format `DIR: 1,234 images in 10 classes`."""
    if source.sample_count is None:
        return f"{source.name}, which is streamed"
    count = f"{source.name}: {source.sample_count:,} images"
    if source.labels is None:
        return f"{count} without labels"
    present = len(np.unique(source.labels))
    return f"{count} in {present:,} classes" if present > 1 else f"{count} of one class"


def _small_epoch(train: Source | StreamSource, config: Config) -> Iterator[str]:
    """Yield a note if many images of an epoch do not fill a batch."""
    batch, count = config.train.batch_size, train.sample_count
    if count is not None and count >= batch and count % batch > count // _NOTABLE:
        yield (
            f"an epoch is {count // batch:,} steps of {batch:,} images: the remaining "
            f"{count % batch:,} images, different ones in each epoch, are skipped"
        )


def _unlabelled(config: Config) -> Iterator[str]:
    data = config.data
    tests, bank = open_data(data.test or ""), open_data(data.bank or data.train)
    without = tests if tests.labels is None else bank
    unnamed = {"data.test=DIR": tests, "data.bank=DIR": bank}
    needed = " ".join(name for name, source in unnamed.items() if source.labels is None)
    yield (
        f"{without.name} has no labels: training continues without kNN and linear accuracy, and "
        f"measures only signs of a collapse; for accuracies, name labelled images with {needed}"
    )


def _on_training_images(train: Source | StreamSource, config: Config) -> str:
    from patchmill.training.methods import find

    count = train.sample_count or 0
    tested = len(data_splits.tested_ids(count))
    known = ", labels included," if find(config.method_name).needs_labels else ""
    return (
        f"there are no test images: accuracies during training are measured on {tested:,} training "
        f"images, with the other {count - tested:,} as neighbours; the network learns from all of "
        f"them{known or ','} so that other images may score lower; {_NAME_OTHERS}"
    )


def _compared(config: Config) -> Iterator[str]:
    data = config.data
    tests, bank = open_data(data.test or ""), open_data(data.bank or data.train)
    yield f"kNN during training: on {_described(tests)}"
    yield from _one_class(tests)
    yield from _one_class(bank)
    unknown = data_splits.classes_missing_in(tests, bank)
    if unknown:
        yield (
            f"{len(unknown)} classes of {tests.name} are not in {bank.name} "
            f"({data_splits.named(unknown)}), and their images are not tested"
        )
    missing = [name for name in bank.classes if name not in set(tests.classes)]
    if unknown is not None and missing:
        yield (
            f"{len(missing)} classes of {bank.name} are not in {tests.name} "
            f"({data_splits.named(missing)})"
        )


def _one_class(source: Source | StreamSource) -> Iterator[str]:
    if source.labels is not None and len(np.unique(source.labels)) < 2:
        yield f"all images of {source.name} belong to one class, so accuracies are meaningless"


def check(config: Config) -> None:
    """Raise a MillError for evaluations that would fail after the first epoch, or never run."""
    if config.evaluate.knn_every and measurable(config) and labelled(config):
        data_splits.open_split(config, "test")
    elif config.evaluate.stop_at is not None:
        raise MillError(
            f"evaluate.stop_at={config.evaluate.stop_at:g} needs an accuracy, but none is "
            f"measured on this data: {_NAME_OTHERS}"
        )
