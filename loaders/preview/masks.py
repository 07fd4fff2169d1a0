"""The sheet of masks: for each sample the image, its mask, and what the mask cuts out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from patchmill.loaders.preview.boxes import WHITE
from patchmill.loaders.preview.layout import BODY, MARGIN, SMALL, TITLE
from patchmill.loaders.preview.samples import Mask, Masker, chosen, image_of, label_of, masker
from patchmill.loaders.preview.text import INK, MUTED, Rgb, elided, line_height, wrapped, write
from patchmill.loaders.sources import Source, open_source

WIDTH = 1440
HEIGHT, LEAST_HEIGHT, MOST_HEIGHT = 170, 90, 210  # of pictures: what is aimed at, and the range
BESIDE, BETWEEN, BELOW = 4, 26, 22  # a sample's pictures, samples, and rows of them
TEXT = 2 * line_height(SMALL) + 6
ACCENT, ALARM, BAD = (208, 74, 2), (179, 29, 40), (225, 228, 232)
_FADED = 0.72  # how far what is background goes towards white


@dataclass(frozen=True)
class Masked:
    """One sample to show."""

    id: int
    label: str  # the name of its class, if it has one
    image: np.ndarray | None  # none where it cannot be read
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
    """Images, their masks, and what these cut out.

    The masks are those of the file `masks`, or those that a loader would find, or made here by the
    method, which is RBD if it would find none.
    """
    source = open_source(data)
    ids, maker = chosen(source, count, seed, epoch, ids), masker(source, method, masks)
    samples = [_masked(source, maker, id) for id in ids]
    about = f"{maker.name} · image, mask, and what the mask cuts out"
    return sheet(samples, f"masks: {maker.title}", about)


def _masked(source: Source, maker: Masker, id: int) -> Masked:
    image, problem = image_of(source, id)
    mask = Mask(None, why=problem) if image is None else maker.look(id, image)
    return Masked(id, label_of(source, id), image, mask)


# ---------------------------------------------------------------------------------------- the sheet


def sheet(samples: Sequence[Masked], title: str, about: str) -> Image.Image:
    """`title` says whose masks they are, `about` what they depend on besides."""
    rows = [[_card(one, height) for one in row] for row, height in _rows(samples)]
    top = 22 + line_height(TITLE) + line_height(BODY) + 18
    height = top + sum(row[0].height + BELOW for row in rows) - BELOW + MARGIN
    whole = Image.new("RGB", (WIDTH, height), WHITE)
    pen, room = ImageDraw.Draw(whole), WIDTH - 2 * MARGIN
    write(pen, (MARGIN, 22), [elided(title, TITLE, room)], TITLE, INK)
    write(pen, (MARGIN, 22 + line_height(TITLE)), [elided(about, BODY, room)], BODY)
    for row in rows:
        x = MARGIN
        for card in row:
            whole.paste(card, (x, top))
            x += card.width + BETWEEN
        top += row[0].height + BELOW
    return whole


def _rows(samples: Sequence[Masked]) -> Iterator[tuple[list[Masked], int]]:
    """Rows that fill the width with pictures about as high as HEIGHT, and how high they are."""
    row: list[Masked] = []
    for sample in samples:
        if row and _off(_filling([*row, sample])) > _off(_filling(row)):
            yield row, _height(row)
            row = []
        row.append(sample)
    if row:
        yield row, min(_height(row), HEIGHT)


def _filling(row: Sequence[Masked]) -> float:
    """The height at which pictures fill a row."""
    shapes = [_aspects(sample) for sample in row]
    gaps = sum(BESIDE * (len(one) - 1) for one in shapes) + BETWEEN * (len(row) - 1)
    return (WIDTH - 2 * MARGIN - gaps) / sum(map(sum, shapes))


def _height(row: Sequence[Masked]) -> int:
    return min(max(int(_filling(row)), LEAST_HEIGHT), MOST_HEIGHT)


def _off(height: float) -> float:
    return abs(math.log(height / HEIGHT))


def _aspects(sample: Masked) -> list[float]:
    """Width over height of each of its pictures."""
    if sample.image is None:
        return [2.0]
    height, wide, _ = sample.image.shape
    return [min(max(wide / height, 0.4), 2.0)] * (2 if sample.mask.plane is None else 3)


def _card(sample: Masked, height: int) -> Image.Image:
    """The pictures of one sample side by side, and what is to be said of them."""
    pictures = _pictures(sample, height)
    wide = sum(picture.width + BESIDE for picture in pictures) - BESIDE
    card = Image.new("RGB", (wide, height + TEXT), WHITE)
    x = 0
    for picture in pictures:
        card.paste(picture, (x, 0))
        x += picture.width + BESIDE
    name = " · ".join(filter(None, [f"sample {sample.id}", sample.label]))
    said = [elided(line, SMALL, wide) for line in (name, _figures(sample.mask))]
    pen, below = ImageDraw.Draw(card), height + 4
    write(pen, (0, below), said[:1], SMALL, INK)
    colour = ALARM if sample.mask.why else MUTED
    write(pen, (0, below + line_height(SMALL)), said[1:], SMALL, colour)
    return card


def _figures(mask: Mask) -> str:
    if mask.why:
        return f"not used: {mask.why}"
    told = [f"foreground {mask.foreground:.0%}"]
    if mask.confidence is not None:
        told.append(f"confidence {mask.confidence:.2f}")
    return " · ".join(told)


def _pictures(sample: Masked, height: int) -> list[Image.Image]:
    size = round(_aspects(sample)[0] * height), height
    if sample.image is None:
        return [_blank(["cannot", "be", "read"], size)]
    image = Image.fromarray(sample.image).resize(size, Image.Resampling.LANCZOS)
    if sample.mask.plane is None:
        return [image, _blank(["no", "mask"], size)]
    mask = Image.fromarray(sample.mask.plane).resize(size, Image.Resampling.BILINEAR)
    return [image, mask.convert("RGB"), cut_out(image, mask, ALARM if sample.mask.why else ACCENT)]


def cut_out(image: Image.Image, mask: Image.Image, colour: Rgb) -> Image.Image:
    """The foreground as it is, the background grey and pale, and a line where they meet."""
    pixels = np.asarray(image, np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    pale = np.repeat((_FADED * 255 + (1 - _FADED) * grey)[..., None], 3, axis=2)
    share = np.asarray(mask, np.float32)[..., None] / 255
    mixed = Image.fromarray(np.rint(share * pixels + (1 - share) * pale).astype(np.uint8))
    mixed.paste(colour, None, _line(mask))
    return mixed


def _line(mask: Image.Image) -> Image.Image:
    """Where foreground meets background; smooth, because it is drawn larger."""
    fine = mask.resize((mask.width * 3, mask.height * 3), Image.Resampling.BICUBIC)
    inside = fine.point(lambda value: 255 * (value >= 128), "L")
    edge = np.asarray(inside.filter(ImageFilter.MaxFilter(5))) - np.asarray(inside)
    return Image.fromarray(edge).resize(mask.size, Image.Resampling.BOX)


def _blank(words: list[str], size: tuple[int, int]) -> Image.Image:
    panel = Image.new("RGB", size, BAD)
    lines = wrapped(words, BODY, size[0] - 20)
    y = (panel.height - len(lines) * line_height(BODY)) // 2
    write(ImageDraw.Draw(panel), (10, y), lines, BODY)
    return panel
