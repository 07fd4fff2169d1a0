"""Draw the pictures of these pages: python docs/make_pictures.py [NAME ...]

A preset's name draws its sheet, into docs/recipes; `scenes`, `objects`, `views` and `masks` are
the pictures in docs. All show painted scenes, so that anybody can draw them again.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchmill.loaders import presets
from patchmill.loaders.preview.command import contact_sheet

if TYPE_CHECKING:
    from PIL.Image import Image

DOCS = Path(__file__).parent
DATA = "scenes(count=64, size=320)"
WIDTH = 960  # pixels; larger sheets are reduced
COLOURS = 96
WRITTEN = {"selfie": "selfie(size=224)"}  # whose default is CIFAR's size
GAP = 4  # pixels between scenes


def main(names: list[str]) -> None:
    for name in names or [*PICTURES, *presets.ALL]:
        if name in PICTURES:
            draw, width, colours = PICTURES[name]
            _save(draw(), DOCS / f"{name}.png", width, colours)
        else:
            sheet = contact_sheet(DATA, WRITTEN.get(name, name), count=1, ids=[43])
            _save(sheet, DOCS / "recipes" / f"{name}.png", WIDTH, COLOURS)


def _save(sheet: Image, path: Path, width: int, colours: int) -> None:
    from PIL import Image

    if sheet.width > width:
        height = round(sheet.height * width / sheet.width)
        sheet = sheet.resize((width, height), Image.Resampling.LANCZOS)
    dither = Image.Dither.FLOYDSTEINBERG if colours == 256 else Image.Dither.NONE
    palette = sheet.quantize(colours)
    sheet.quantize(colours, palette=palette, dither=dither).save(path, optimize=True)
    print(f"{path}: {sheet.width} x {sheet.height}, {path.stat().st_size // 1024} kB")


def draw_scenes() -> Image:
    """Twelve scenes, of all ten classes."""
    from PIL import Image

    from patchmill.loaders.sources import open_source

    source = open_source("scenes(count=64, size=320)")
    images = [Image.open(io.BytesIO(source.read(index))).convert("RGB") for index in SCENES]
    small = [image.resize((160, 160), Image.Resampling.LANCZOS) for image in images]
    return _grid(small, columns=6)


def draw_objects() -> Image:
    """Scenes of several objects, with the labels and boxes of these."""
    from patchmill.loaders.decode.decoder import decode
    from patchmill.loaders.sources import open_source
    from patchmill.loaders.sources.scenes.source import Scenes
    from patchmill.training.evaluation.detect.picture import Drawn, panel

    source = open_source("scenes(count=64, size=320, objects=(3, 6))")
    assert isinstance(source, Scenes) and source.classes is not None
    panels = []
    for index in OBJECTS:
        drawn = [
            Drawn(item.label, source.classes[item.label], item.box, None)
            for item in source.objects(index)
        ]
        panels.append(panel(decode(source.read(index)), drawn))
    return _grid(panels, columns=5)


def draw_views() -> Image:
    return contact_sheet("scenes:64", "dino(local_crops=6)", ids=VIEWS)


def draw_masks() -> Image:
    from patchmill.loaders.preview.mask_sheet import mask_sheet

    return mask_sheet("scenes:256", "rbd", ids=MASKS)


SCENES = (43, 12, 46, 45, 13, 48, 58, 16, 24, 49, 56, 18)
OBJECTS = (6, 4, 8, 11, 19)
VIEWS = (58, 18, 56)
MASKS = (44, 18, 58, 13, 49, 53, 25, 24, 22, 63)
PICTURES = {
    "scenes": (draw_scenes, 1000, 256),
    "objects": (draw_objects, 1000, 256),
    "views": (draw_views, 1188, 256),
    "masks": (draw_masks, 1440, 128),
}


def _grid(images: Sequence[Image], columns: int) -> Image:
    from PIL import Image

    width, height = images[0].size
    rows = -(-len(images) // columns)
    size = (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, (255, 255, 255))
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        sheet.paste(image, (column * (width + GAP), row * (height + GAP)))
    return sheet


if __name__ == "__main__":
    main(sys.argv[1:])
