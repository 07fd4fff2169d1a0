"""Draw a contact sheet of masks: the image, its mask and the cut-out of each sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from patchmill.loaders.preview.boxes import WHITE
from patchmill.loaders.preview.layout import BODY, MARGIN, SMALL, TITLE
from patchmill.loaders.preview.samples import (
    Mask,
    MaskSource,
    choose_ids,
    class_name,
    decode_sample,
    open_mask_source,
)
from patchmill.loaders.preview.text import INK, MUTED, Rgb, elide, line_height, wrap, write_lines
from patchmill.loaders.sources import Source, open_source

WIDTH = 1440
TARGET_HEIGHT, MIN_HEIGHT, MAX_HEIGHT = 170, 90, 210  # of pictures
PICTURE_GAP, SAMPLE_GAP, ROW_GAP = 4, 26, 22  # between pictures of a sample, samples, and rows
TEXT_HEIGHT = 2 * line_height(SMALL) + 6
ACCENT, ALARM, BAD = (208, 74, 2), (179, 29, 40), (225, 228, 232)
_FADED = 0.72  # share of white that is blended into the background


@dataclass(frozen=True)
class MaskedSample:
    """One sample and its mask."""

    id: int
    label: str  # the name of its class; may be empty
    image: np.ndarray | None  # None if it cannot be read
    mask: Mask


def mask_sheet(
    data: str | Path | Source,
    method: str | None = None,
    *,
    count: int = 12,
    seed: int = 0,
    epoch: int = 0,
    ids: Sequence[int] | None = None,
    masks: str | Path | None = None,
) -> Image.Image:
    """Draw images, their masks, and the cut-outs.

    Masks come from the file `masks`, or from where a loader would find them. They are computed if
    `method` is given, or by RBD if there are none.
    """
    source = open_source(data)
    ids, mask_source = (
        choose_ids(source, count, seed, epoch, ids),
        open_mask_source(source, method, masks),
    )
    samples = [_masked_sample(source, mask_source, id) for id in ids]
    about = f"{mask_source.name} · image, mask, and what the mask cuts out"
    return draw_mask_sheet(samples, f"masks: {mask_source.title}", about)


def _masked_sample(source: Source, mask_source: MaskSource, id: int) -> MaskedSample:
    image, problem = decode_sample(source, id)
    mask = Mask(None, why=problem) if image is None else mask_source.get(id, image)
    return MaskedSample(id, class_name(source, id), image, mask)


# ---------------------------------------------------------------------------------------- the sheet


def draw_mask_sheet(samples: Sequence[MaskedSample], title: str, about: str) -> Image.Image:
    """Draw the sheet; `title` names the masks, `about` the data."""
    rows = [[_card(sample, height) for sample in row] for row, height in _rows(samples)]
    top = 22 + line_height(TITLE) + line_height(BODY) + 18
    height = top + sum(row[0].height + ROW_GAP for row in rows) - ROW_GAP + MARGIN
    sheet = Image.new("RGB", (WIDTH, height), WHITE)
    pen, width = ImageDraw.Draw(sheet), WIDTH - 2 * MARGIN
    write_lines(pen, (MARGIN, 22), [elide(title, TITLE, width)], TITLE, INK)
    write_lines(pen, (MARGIN, 22 + line_height(TITLE)), [elide(about, BODY, width)], BODY)
    for row in rows:
        x = MARGIN
        for card in row:
            sheet.paste(card, (x, top))
            x += card.width + SAMPLE_GAP
        top += row[0].height + ROW_GAP
    return sheet


def _rows(samples: Sequence[MaskedSample]) -> Iterator[tuple[list[MaskedSample], int]]:
    """Split samples into rows that fill the width; yield each with the height of its pictures."""
    row: list[MaskedSample] = []
    for sample in samples:
        if row and _misfit([*row, sample]) > _misfit(row):
            yield row, _height(row)
            row = []
        row.append(sample)
    if row:
        yield row, min(_height(row), TARGET_HEIGHT)


def _filling_height(row: Sequence[MaskedSample]) -> float:
    """Height at which the pictures fill the row's width."""
    aspects = [_aspects(sample) for sample in row]
    gaps = sum(PICTURE_GAP * (len(pictures) - 1) for pictures in aspects) + SAMPLE_GAP * (
        len(row) - 1
    )
    return (WIDTH - 2 * MARGIN - gaps) / sum(map(sum, aspects))


def _height(row: Sequence[MaskedSample]) -> int:
    return min(max(int(_filling_height(row)), MIN_HEIGHT), MAX_HEIGHT)


def _misfit(row: Sequence[MaskedSample]) -> float:
    return abs(math.log(_filling_height(row) / TARGET_HEIGHT))


def _aspects(sample: MaskedSample) -> list[float]:
    """Width / height of each of the sample's pictures."""
    if sample.image is None:
        return [2.0]
    height, wide, _ = sample.image.shape
    return [min(max(wide / height, 0.4), 2.0)] * (2 if sample.mask.plane is None else 3)


def _card(sample: MaskedSample, height: int) -> Image.Image:
    """The pictures of one sample side by side, and their caption."""
    pictures = _pictures(sample, height)
    wide = sum(picture.width + PICTURE_GAP for picture in pictures) - PICTURE_GAP
    card = Image.new("RGB", (wide, height + TEXT_HEIGHT), WHITE)
    x = 0
    for picture in pictures:
        card.paste(picture, (x, 0))
        x += picture.width + PICTURE_GAP
    name = " · ".join(filter(None, [f"sample {sample.id}", sample.label]))
    lines = [elide(line, SMALL, wide) for line in (name, _figures(sample.mask))]
    pen, below = ImageDraw.Draw(card), height + 4
    write_lines(pen, (0, below), lines[:1], SMALL, INK)
    colour = ALARM if sample.mask.why else MUTED
    write_lines(pen, (0, below + line_height(SMALL)), lines[1:], SMALL, colour)
    return card


def _figures(mask: Mask) -> str:
    if mask.why:
        return f"not used: {mask.why}"
    words = [f"foreground {mask.foreground:.0%}"]
    if mask.confidence is not None:
        words.append(f"confidence {mask.confidence:.2f}")
    return " · ".join(words)


def _pictures(sample: MaskedSample, height: int) -> list[Image.Image]:
    size = round(_aspects(sample)[0] * height), height
    if sample.image is None:
        return [_blank(["cannot", "be", "read"], size)]
    image = Image.fromarray(sample.image).resize(size, Image.Resampling.LANCZOS)
    if sample.mask.plane is None:
        return [image, _blank(["no", "mask"], size)]
    mask = Image.fromarray(sample.mask.plane).resize(size, Image.Resampling.BILINEAR)
    return [image, mask.convert("RGB"), cut_out(image, mask, ALARM if sample.mask.why else ACCENT)]


def cut_out(image: Image.Image, mask: Image.Image, colour: Rgb) -> Image.Image:
    """Draw the foreground unchanged, the background pale and grey, and an outline between them."""
    pixels = np.asarray(image, np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    pale = np.repeat((_FADED * 255 + (1 - _FADED) * grey)[..., None], 3, axis=2)
    share = np.asarray(mask, np.float32)[..., None] / 255
    mixed = Image.fromarray(np.rint(share * pixels + (1 - share) * pale).astype(np.uint8))
    mixed.paste(colour, None, _outline(mask))
    return mixed


def _outline(mask: Image.Image) -> Image.Image:
    """The foreground's outline, drawn larger and reduced for antialiasing."""
    fine = mask.resize((mask.width * 3, mask.height * 3), Image.Resampling.BICUBIC)
    inside = fine.point(lambda value: 255 * (value >= 128), "L")
    edge = np.asarray(inside.filter(ImageFilter.MaxFilter(5))) - np.asarray(inside)
    return Image.fromarray(edge).resize(mask.size, Image.Resampling.BOX)


def _blank(words: list[str], size: tuple[int, int]) -> Image.Image:
    panel = Image.new("RGB", size, BAD)
    lines = wrap(words, BODY, size[0] - 20)
    y = (panel.height - len(lines) * line_height(BODY)) // 2
    write_lines(ImageDraw.Draw(panel), (10, y), lines, BODY)
    return panel
