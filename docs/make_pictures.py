"""Draw a sheet for each preset, into docs/recipes: python docs/make_pictures.py [NAME ...]

The image is a painted scene, so that anybody can draw the same sheets.
"""

from __future__ import annotations

import sys
from pathlib import Path

from patchmill.loaders import presets
from patchmill.loaders.preview.command import contact_sheet

OUT = Path(__file__).parent / "recipes"
DATA = "scenes(count=64, size=320)"
WIDTH = 960  # pixels; larger sheets are reduced
COLOURS = 96
WRITTEN = {"selfie": "selfie(size=224)"}  # whose default is CIFAR's size


def main(names: list[str]) -> None:
    from PIL import Image

    OUT.mkdir(exist_ok=True)
    for name in names or presets.ALL:
        sheet = contact_sheet(DATA, WRITTEN.get(name, name), count=1, ids=[2])
        if sheet.width > WIDTH:
            height = round(sheet.height * WIDTH / sheet.width)
            sheet = sheet.resize((WIDTH, height), Image.Resampling.LANCZOS)
        path = OUT / f"{name}.png"
        sheet.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {sheet.width} x {sheet.height}, {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
