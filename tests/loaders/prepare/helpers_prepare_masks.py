"""Photos with two that are none, and their masks by a quick method."""

from __future__ import annotations

from pathlib import Path

import helpers_prepare as making

from patchmill.loaders.prepare import make_masks
from patchmill.loaders.prepare.options import MaskOptions
from patchmill.loaders.sources import open_source

COUNT, BAD = 24, 2
OPTIONS = {"method": "gs", "max_side": 24}


def mask_photos(root: Path) -> Path:
    folder = making.photos(root, COUNT - BAD)
    return making.write_folder(folder, {f"class0/bad{i}.jpg": b"no image" for i in range(BAD)})


def make(data: Path, out: Path, workers: int = 2, overwrite: bool = False, **options: object):
    given = MaskOptions(**{**OPTIONS, **options})  # type: ignore[arg-type]
    return make_masks.make(open_source(data), out, given, workers, overwrite)
