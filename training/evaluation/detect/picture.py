"""Picture of test images: the objects in them, and the detections of each network."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from patchmill.loaders.preview.text import INK, MUTED, font, line_height, text_width
from patchmill.training.evaluation.detect.annotated import AnnotatedImages, pixels
from patchmill.training.evaluation.detect.batches import mask_of
from patchmill.training.evaluation.detect.train import Detections

FILE = "detect.png"
CONFIDENT = 0.5  # minimum score of a detection to be drawn
HEIGHT, GAP, HEAD = 180, 6, 24  # pixels: an image, the gap between two, the row of titles
TINT = 0.45  # opacity of a mask


class Drawn(NamedTuple):
    label: int
    text: str
    box: Sequence[float]
    mask: np.ndarray | None


def draw(
    images: AnnotatedImages,
    classes: Sequence[str],
    detections: Mapping[str, Sequence[Detections]],
    count: int,
) -> Image.Image:
    """Draw one row per image, evenly spaced over all: its objects, and each network's detections.

    `classes` are the names for the detectors' labels.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, count).round().astype(int)).tolist()
    rows = []
    for index in chosen:
        image = pixels(images, index)
        columns = [_objects(images, classes, index)]
        columns += [_confident(classes, each[index], image.shape) for each in detections.values()]
        rows.append([panel(image, drawn) for drawn in columns])
    titles = ["objects", *(f"{name}, score at least {CONFIDENT:g}" for name in detections)]
    return _sheet(titles, rows)


def _objects(images: AnnotatedImages, classes: Sequence[str], index: int) -> list[Drawn]:
    width, height = images.size(index)
    drawn = []
    for instance in images.instances(index):
        name = images.classes[instance.label]
        mask = None if instance.shape is None else mask_of(instance.shape, height, width)
        note = " (crowd)" if instance.crowd else " (difficult)" if instance.difficult else ""
        drawn.append(Drawn(classes.index(name), name + note, instance.box, mask))
    return drawn


def _confident(classes: Sequence[str], detected: Detections, shape: tuple[int, ...]) -> list[Drawn]:
    return [
        Drawn(
            label,
            f"{classes[label]} {score:.2f}",
            detected.boxes[n].tolist(),
            None if detected.masks is None else mask_of(detected.masks[n], *shape[:2]),
        )
        for n, (label, score) in enumerate(
            zip(detected.labels.tolist(), detected.scores.tolist(), strict=True)
        )
        if score >= CONFIDENT
    ]


def panel(image: np.ndarray, drawn: Sequence[Drawn]) -> Image.Image:
    """Draw the image at its height on the sheet, with boxes, names and masks."""
    tinted = image.astype(np.float32)
    for instance in drawn:
        if instance.mask is not None:
            inside = instance.mask.astype(bool)
            tinted[inside] = (1 - TINT) * tinted[inside] + TINT * np.array(colour(instance.label))
    scale = HEIGHT / image.shape[0]
    panel = Image.fromarray(tinted.round().astype(np.uint8))
    panel = panel.resize((max(round(image.shape[1] * scale), 1), HEIGHT), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(panel)
    for instance in drawn:
        x1, y1, x2, y2 = (value * scale for value in instance.box)
        pen.rectangle(
            (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour(instance.label), width=2
        )
        width, height = text_width(instance.text, 10) + 4, line_height(10)
        left = max(min(x1, panel.width - width), 0)  # names stay on the panel
        top = min(y1, panel.height - height)
        pen.rectangle((left, top, left + width, top + height), fill=colour(instance.label))
        pen.text(
            (left + 2, top + height / 2), instance.text, (255, 255, 255), font(10), anchor="lm"
        )
    return panel


def colour(label: int) -> tuple[int, int, int]:
    """Return a colour for a class: hues a golden ratio apart, dark enough for white text."""
    red, green, blue = colorsys.hls_to_rgb((0.6 + label * 0.618034) % 1, 0.4, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def _sheet(titles: Sequence[str], rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    width = max(panel.width for row in rows for panel in row)
    size = (len(titles) * (width + GAP) - GAP, HEAD + len(rows) * (HEIGHT + GAP) - GAP)
    sheet = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        left = column * (width + GAP)
        pen.text((left, HEAD / 2), title, MUTED if column else INK, font(12), anchor="lm")
        for row, panels in enumerate(rows):
            sheet.paste(panels[column], (left, HEAD + row * (HEIGHT + GAP)))
    return sheet
