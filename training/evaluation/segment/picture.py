"""segment.png: test images, their labels, and the predictions of each network."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from patchmill.loaders.preview.text import INK, font
from patchmill.training.evaluation.segment.labelled import IGNORED, Labelled

FILE = "segment.png"
IMAGES = 6
SIDE, GAP, HEAD = 128, 6, 24  # pixels: a picture, the gap between two, the row of titles
BACKGROUND = (222, 226, 230)
UNLABELLED = (255, 255, 255)
GOLDEN = 0.618034  # hue step from one class to the next, as a share of the circle


def choose(data: Labelled) -> list[int]:
    """Return the indices of the images to show, evenly spaced."""
    count = min(IMAGES, len(data))
    return [round(i * (len(data) - 1) / max(count - 1, 1)) for i in range(count)]


def draw(data: Labelled, predictions: Mapping[str, Mapping[int, torch.Tensor]]) -> Image.Image:
    """Draw one row per image: the image, its labels, and each network's prediction."""
    colours, titles = palette(data.classes), ["image", "labels", *predictions]
    indices = list(next(iter(predictions.values())))
    step = SIDE + GAP
    sheet = Image.new("RGB", (len(titles) * step - GAP, HEAD + len(indices) * step), UNLABELLED)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((column * step, HEAD / 2), title, INK, font(12), anchor="lm")
    for row, index in enumerate(indices):
        sample = data.read(index)
        masks = [sample.mask, *(predicted[index] for predicted in predictions.values())]
        tiles = [Image.fromarray(sample.image.permute(1, 2, 0).numpy())]
        tiles += [Image.fromarray(colours[mask.numpy()]) for mask in masks]
        for column, tile in enumerate(tiles):
            tile.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
            tile = _enlarged(tile)
            sheet.paste(tile, (column * step, HEAD + row * step))
    return sheet


def palette(classes: Sequence[str]) -> np.ndarray:
    """uint8 [256, 3]: a colour for each label; the background is grey, IGNORED is white."""
    colours = np.full((IGNORED + 1, 3), UNLABELLED, np.uint8)
    for label, name in enumerate(classes):
        lightness = (0.45, 0.6, 0.35)[label // 12 % 3]
        rgb = colorsys.hls_to_rgb(label * GOLDEN % 1, lightness, 0.6)
        shade = [round(255 * value) for value in rgb]
        colours[label] = BACKGROUND if name == "background" else shade
    return colours


def _enlarged(tile: Image.Image) -> Image.Image:
    """Enlarge a small picture by a whole factor, up to SIDE."""
    factor = max(1, SIDE // max(tile.size))
    return tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
