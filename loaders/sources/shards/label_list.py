"""Labels of a tar's images from a list next to it, as for ImageNet's validation images.

For `photos.tar` the list is `photos.csv`, `photos.tsv` or `photos.txt`. For
`ILSVRC2012_img_val.tar` it may also be `val.txt` or `val.csv`, or Kaggle's `LOC_val_solution.csv`.
A line holds an image's name and its label, separated by commas, tabs or (`.txt`) spaces; the rest
is ignored. Labels that are all integers are class numbers; others are numbered in sorted order.

The list of ImageNet's own development kit, `ILSVRC2012_validation_ground_truth.txt`, is not read:
it numbers the classes in another order than that of the sorted class names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.lists import labels as class_labels

log = logging.getLogger("patchmill")

_KAGGLES = "LOC_val_solution.csv"  # boxes follow the class
_VALIDATION = "ILSVRC2012_img_val.tar"
_VALIDATION_LISTS = ("val.txt", "val.csv", _KAGGLES)
_DEVKIT = ("ILSVRC2012_validation_ground_truth.txt", "ILSVRC2012_devkit_t12.tar.gz")
_BETWEEN = {".csv": ",", ".tsv": "\t", ".txt": None}  # None: spaces and tabs


def find(tar: str) -> Path | None:
    """Path of the list next to a tar; None if there is none."""
    path = Path(tar)
    names = [path.stem + ending for ending in _BETWEEN]
    if path.name == _VALIDATION:
        names += _VALIDATION_LISTS
    candidates = [path.with_name(name) for name in names]
    return next((file for file in candidates if file.is_file()), None)


def warn_of_missing(tar: str) -> None:
    """Log that ImageNet's validation tar holds no labels, and how to add them."""
    path = Path(tar)
    if path.name != _VALIDATION:
        return
    devkit = next((name for name in _DEVKIT if path.with_name(name).exists()), "")
    other = f", and {devkit} numbers classes in another order" if devkit else ""
    log.warning(
        "%s holds no labels%s: put a list of names and classes next to it, a val.txt with lines "
        "such as 'ILSVRC2012_val_00000001.JPEG n01751748'",
        tar,
        other,
    )


def labels_of(names: Sequence[bytes], file: Path, tar: str) -> tuple[list[str], np.ndarray] | None:
    """Class names, and the label of each of these images; None if the list names none of them.

    Raises a MillError if it names only some.
    """
    by_name = _read(file)
    stems = [_stem(os.fsdecode(name)) for name in names]
    missing = [stem for stem in stems if stem not in by_name]
    if len(missing) == len(stems):
        log.warning("%s is not a list of labels: it names none of the images in %s", file, tar)
        return None
    if missing:
        raise MillError(
            f"the list {file} has no label for {len(missing)} of the {len(names)} images in {tar}, "
            f"first {missing[0]!r}: complete the list, or rename it to do without labels"
        )
    all_labels = list(by_name.values())  # including images that the tar lacks: same numbering
    classes, numbers = class_labels.numbered(str(file), all_labels)
    number_of = dict(zip(all_labels, numbers.tolist(), strict=True))
    return classes, np.array([number_of[by_name[stem]] for stem in stems], np.int64)


def _read(file: Path) -> dict[str, str]:
    """Labels by image name, without folders and extension."""
    try:
        lines = file.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise MillError(f"cannot read the list {file}: {error.strerror or error}") from None
    labels: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        fields = [field.strip(" \"'") for field in line.split(_BETWEEN[file.suffix])]
        if len(fields) < 2 or not all(fields[:2]) or (number == 1 and _is_header(fields[0])):
            continue
        labels[_stem(fields[0])] = fields[1].split()[0] if file.name == _KAGGLES else fields[1]
    return labels


def _is_header(field: str) -> bool:
    """True unless the field is the name of an image."""
    return "." not in field and not any(letter.isdigit() for letter in field)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]
