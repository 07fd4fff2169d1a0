"""Byte parsers for `guided` whose other checks mutate more than bytes, or different bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchmill.loaders.copypaste.mask_png import decode_mask, encode_mask
from patchmill.loaders.decode.bad_image import BadImage
from patchmill.loaders.recipe_load import load_recipe
from trust.check import Outcome, Task
from trust.fuzz import coco, image_mutations, images, resealed
from trust.fuzz import recipes as recipe_checks
from trust.fuzz.opening import fuzz


def image_headers(task: Task) -> Outcome:
    """Images of all kinds, compared with PIL."""

    def decode(data: bytes, path: Path) -> str:
        end, problem = images.judged(data)
        assert not problem, problem
        return end

    outcome = Outcome()
    fuzz(task, outcome, [data for data in image_mutations.seeds() if len(data) < 2000], decode)
    return outcome


def mask_pngs(task: Task) -> Outcome:
    plane = np.tile(np.uint8([0, 17, 255, 34]), (6, 3))

    def decode(data: bytes, path: Path) -> str:
        try:
            mask = decode_mask(data, lambda: "the mask")
        except BadImage as error:
            assert str(error) and "\n" not in str(error), f"not one sentence: {error!r}"
            return "bad image"
        assert mask.dtype == np.uint8 and mask.ndim == 2 and mask.size
        return "mask"

    outcome = Outcome()
    fuzz(task, outcome, [encode_mask(plane), encode_mask(plane, 4)], decode, fit=resealed.png)
    return outcome


def recipes(task: Task) -> Outcome:
    """Recipe files, which must survive a round trip."""

    def read(data: bytes, path: Path) -> str:
        (file := path.with_suffix(".yaml")).write_bytes(data)
        try:
            recipe_checks.read_file(file)
        finally:
            file.unlink()
        return "recipe"

    outcome = Outcome()
    texts = [load_recipe(call).to_yaml() for call in recipe_checks.CALLS]
    fuzz(task, outcome, [text.encode() for text in texts], read)
    return outcome


def coco_files(task: Task) -> Outcome:
    file = coco.seed(task.folder)

    def use(data: bytes, path: Path) -> str:
        file.write_bytes(data)
        coco.use(file)
        return "annotations"

    outcome = Outcome()
    fuzz(task, outcome, [file.read_bytes()], use)
    return outcome
