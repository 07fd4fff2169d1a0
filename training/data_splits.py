"""Images to evaluate on: a bank of labelled images, and test images with the same class numbers.

If the test images are the training images (`data.test` equals `data.train`), a tenth of them is
used for testing, and the rest is the bank: an image must not be its own neighbour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.order.permutation import Order
from patchmill.loaders.sources import Source, open_data
from patchmill.loaders.sources.subset import Subset

if TYPE_CHECKING:
    from patchmill.loaders.sources.stream.source import StreamSource
    from patchmill.training.config.settings import Config

Split = Literal["train", "test"]

SHARE = 10  # one in this many training images is used for testing
MOST = 10_000  # of these test images
_SHOWN = 3  # names of classes in a message


def open_split(config: Config, split: Split) -> Source | StreamSource:
    """Open the images of a split for evaluation."""
    data = config.data
    if split == "test" and data.test is None:
        raise MillError(f"data={data.name} has no test images: name some with data.test=DIR")
    bank = open_data(data.bank or data.train)
    if tests_on_training(config) and bank.sample_count is not None:
        tested = tested_ids(bank.sample_count)
        rest = np.setdiff1d(np.arange(bank.sample_count), tested)
        part = Subset(bank, tested if split == "test" else rest)  # type: ignore[arg-type]
        part.name = bank.name
        return part
    return bank if split == "train" else match_class_numbers(open_data(data.test or ""), bank)


def tests_on_training(config: Config) -> bool:
    """True if training images are used for testing."""
    data = config.data
    return data.test == data.train and data.bank in (None, data.train)


def tested_ids(count: int) -> np.ndarray:
    """Return the sorted ids of the training images used for testing; the same in every call."""
    tested = min(max(count // SHARE, 1), MOST)
    return np.sort(Order(count, 0).ids(0, 0, tested))


def match_class_numbers(tests: Source | StreamSource, bank: Source | StreamSource) -> Source:
    """Return the test images with the bank's class numbers, without classes that it lacks."""
    missing = classes_missing_in(tests, bank)
    if missing is None or tests.classes == bank.classes[: len(tests.classes)]:
        return tests  # type: ignore[return-value]
    number_of = {name: number for number, name in enumerate(bank.classes)}
    numbers = np.array([number_of.get(name, -1) for name in tests.classes], np.int64)
    labels = numbers[np.asarray(tests.labels)]
    if labels.max(initial=-1) < 0:
        raise MillError(
            f"{tests.name} and {bank.name} have no class in common ({named(tests.classes)}; "
            f"{named(bank.classes)}): name test images of the same classes with data.test=DIR"
        )
    matched = Subset(tests, np.flatnonzero(labels >= 0))  # type: ignore[arg-type]
    matched.name = tests.name
    matched.labels, matched.classes = labels[labels >= 0], bank.classes
    return matched  # type: ignore[return-value]


def classes_missing_in(
    tests: Source | StreamSource, bank: Source | StreamSource
) -> list[str] | None:
    """Return test classes that the bank lacks; None if there are no names to compare."""
    if tests.labels is None or bank.labels is None:
        return None
    if not all(_are_names(source.classes) for source in (tests, bank)):
        return None
    known = set(bank.classes)
    return [name for name in tests.classes if name not in known]


def _are_names(classes: list[str]) -> bool:
    """True unless classes have no names, or only their numbers as names."""
    return bool(classes) and classes != [str(number) for number in range(len(classes))]


def named(classes: list[str]) -> str:
    return ", ".join(classes[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
