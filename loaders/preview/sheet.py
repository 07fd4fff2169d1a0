"""The contact sheet: a heading, then for each sample its original and its views, group by group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from patchmill.loaders.preview.boxes import WHITE, badge, sign, with_boxes
from patchmill.loaders.preview.layout import (
    BETWEEN,
    BODY,
    GAP,
    LARGEST_PANEL,
    MARGIN,
    NAME,
    PANEL_WIDTH,
    SIGN,
    SMALL,
    TITLE,
    Block,
    Layout,
    layout_of,
)
from patchmill.loaders.preview.pictures import Picture, grid_of, pictures, zoom_of
from patchmill.loaders.preview.text import (
    INK,
    MUTED,
    SHORT,
    elided,
    line_height,
    shortened,
    width,
    wrapped,
    write,
)
from patchmill.loaders.recipe import Recipe

if TYPE_CHECKING:
    from patchmill.loaders.batch import ViewBatch
    from patchmill.loaders.preview.samples import Mask

Sign = tuple[Image.Image | None, str]

RULE, BAD = (223, 227, 231), (225, 228, 232)
WORDS_FROM = 90  # captions of narrower pictures are letters
MOST_BOXES = 24  # more would hide the image


@dataclass(frozen=True)
class Sample:
    """One sample to show: its views as a batch of one, or why there are none."""

    id: int
    label: str  # the name of its class, if it has one
    image: np.ndarray | None = None
    batch: ViewBatch | None = None
    problem: str = ""
    mask: Mask | None = None  # where the recipe pastes by one
    composite: np.ndarray | None = None  # uint8 [side, side, 3]: the whole image, pasted


def sheet(samples: Sequence[Sample], recipe: Recipe, title: str, about: str) -> Image.Image:
    """`title` is the recipe as its user wrote it, `about` says what the views depend on besides."""
    zoom = zoom_of(recipe)
    shown = [pictures(s.batch, recipe, zoom) if s.batch else [] for s in samples]
    layout = layout_of(recipe, zoom)
    strips = [_strip(layout, sample, groups) for sample, groups in zip(samples, shown, strict=True)]
    heading = _heading(layout, _signs(recipe), _letters(layout, shown), title, about)
    height = heading.height + sum(strip.height + BETWEEN for strip in strips) - BETWEEN + MARGIN
    whole = Image.new("RGB", (layout.width, height), WHITE)
    whole.paste(heading)
    pen, y = ImageDraw.Draw(whole), heading.height
    for strip in strips:
        if y > heading.height:
            _rule(pen, layout, y - BETWEEN // 2)
        whole.paste(strip, (0, y))
        y += strip.height + BETWEEN
    return whole


def _rule(pen: ImageDraw.ImageDraw, layout: Layout, y: int) -> None:
    pen.line((MARGIN, y, layout.width - MARGIN, y), RULE)


# ----------------------------------------------------------------------------------------- heading


def _heading(
    layout: Layout, signs: list[Sign], letters: list[str], title: str, about: str
) -> Image.Image:
    """Title and legend; then, where the groups stand side by side, their names."""
    room = layout.width - 2 * MARGIN
    lines = wrapped(letters, SMALL, room, "     ")
    legend = 22 + line_height(TITLE) + line_height(BODY) + 10
    rule = legend + SIGN + len(lines) * line_height(SMALL) + 12
    image = Image.new("RGB", (layout.width, rule + (18 if layout.stacked else 14 + NAME)), WHITE)
    pen, x = ImageDraw.Draw(image), MARGIN
    write(pen, (x, 22), [elided(title, TITLE, room)], TITLE, INK)
    write(pen, (x, 22 + line_height(TITLE)), [elided(about, BODY, room)], BODY)
    for icon, meaning in signs:
        if icon:
            image.paste(icon, (x, legend))
            x += icon.width + 7
        write(pen, (x, legend), [meaning], SMALL)
        x += round(width(meaning, SMALL)) + 22
    write(pen, (MARGIN, legend + SIGN), lines, SMALL)
    _rule(pen, layout, rule)
    if not layout.stacked:
        top = image.height - NAME
        write(pen, (MARGIN, top), ["original"], BODY, INK)
        for block, left in zip(layout.blocks, layout.lefts, strict=True):
            _name(pen, block, layout.zoom, (left, top))
    return image


def _signs(recipe: Recipe) -> list[Sign]:
    """What the boxes' looks, and the numbers in captions, mean."""
    signs: list[Sign] = [(sign(MUTED), "what a view shows")]
    if any(group.flip != 0 for group in recipe.views):
        signs.append((sign(MUTED, flip=True), "flipped"))
    if any(group.turns for group in recipe.views):
        signs.append((sign(MUTED, turns=1), "turned: this side is up"))
    if any(group.blur for group in recipe.views):
        signs.append((None, "blur: sigma in pixels"))
    if any(grid_of(g) != (1, 1) and (g.colour or g.blur or g.solarise) for g in recipe.views):
        signs.append((None, "3/16: 3 of a grid's 16 cells"))
    return signs


def _letters(layout: Layout, shown: Sequence[list[list[Picture]]]) -> list[str]:
    """What the letters in captions mean, if there are any."""
    if all(block.cell >= WORDS_FROM for block in layout.blocks):
        return []
    used = {words.split()[0] for groups in shown for g in groups for p in g for words in p.words}
    return [f"{letter} {word}" for word, letter in SHORT.items() if word in used]


def _name(pen: ImageDraw.ImageDraw, block: Block, zoom: float, at: tuple[int, int]) -> None:
    """The group's name in its colour, and what it holds."""
    group, (rows, columns) = block.group, grid_of(block.group)
    holds = f"{group.count} x {group.size} px"
    if rows * columns > 1:
        holds = f"{group.count} x {rows} x {columns} cells of {group.size} px"
    if zoom != 1:
        holds += f", shown x{zoom}" if zoom > 1 else f", shown at {zoom:.0%}"
    write(pen, at, [group.name], BODY, block.colour)
    write(pen, (at[0] + width(group.name, BODY) + 10, at[1]), [holds], BODY)


# ----------------------------------------------------------------------------------------- samples


def _strip(layout: Layout, sample: Sample, shown: list[list[Picture]]) -> Image.Image:
    """One sample: its original on the left, its views beside it."""
    top = NAME if layout.stacked else 0
    every = [picture for group in shown for picture in group]
    parts, y = [(_original(layout, sample, every), (MARGIN, top))], 0
    for block, x, group in zip(layout.blocks, layout.lefts, shown, strict=False):
        views = _views(layout, block, group)
        parts.append((views, (x, y)))
        y += views.height + GAP if layout.stacked else 0
    strip = Image.new("RGB", (layout.width, max(at[1] + p.height for p, at in parts)), WHITE)
    for part, at in parts:
        strip.paste(part, at)
    return strip


def _original(layout: Layout, sample: Sample, views: Sequence[Picture]) -> Image.Image:
    """The original with its boxes and what is to be said of it."""
    panel = _panel(layout, sample, views)
    name = " · ".join(filter(None, [f"sample {sample.id}", sample.label]))
    about, below = _about(sample, len(views)), panel.height + 6
    height = below + (1 + len(about)) * line_height(BODY)
    pasted = _pasted(sample)
    image = Image.new("RGB", (PANEL_WIDTH, height + (pasted.height if pasted else 0)), WHITE)
    image.paste(panel)
    if pasted:
        image.paste(pasted, (0, height))
    pen = ImageDraw.Draw(image)
    write(pen, (0, below), [elided(name, BODY, PANEL_WIDTH)], BODY, INK)
    write(pen, (0, below + line_height(BODY)), about, BODY)
    return image


def _pasted(sample: Sample) -> Image.Image | None:
    """The mask beside what it made of the whole image."""
    if sample.mask is None or sample.image is None:
        return None
    wide = (PANEL_WIDTH - GAP) // 2
    tall = min(round(wide * sample.image.shape[0] / sample.image.shape[1]), LARGEST_PANEL)
    plane, why = sample.mask.plane, sample.mask.why
    parts = [
        (plane, "mask" if sample.mask.usable is not None else f"mask not used: {why}"),
        (sample.composite, "composite" if sample.composite is not None else "no view pasted"),
    ]
    lines = [wrapped(said.split(), SMALL, wide)[:3] for _, said in parts]
    height = GAP + tall + 6 + max(map(len, lines)) * line_height(SMALL)
    image = Image.new("RGB", (PANEL_WIDTH, height), WHITE)
    pen = ImageDraw.Draw(image)
    for i, (pixels, _) in enumerate(parts):
        x = i * (wide + GAP)
        shown = Image.new("RGB", (wide, tall), BAD)
        if pixels is not None:
            shown = Image.fromarray(pixels).resize((wide, tall), Image.Resampling.LANCZOS)
        image.paste(shown, (x, GAP))
        write(pen, (x, GAP + tall + 6), lines[i], SMALL)
    return image


def _about(sample: Sample, views: int) -> list[str]:
    """What stands below an original, after its name."""
    if sample.image is None:
        return ["in training, another sample takes its place"]
    height, wide, _ = sample.image.shape
    boxes = [f"boxes of the first {MOST_BOXES} views"] if views > MOST_BOXES else []
    return [f"{wide} x {height} px", *boxes]


def _panel(layout: Layout, sample: Sample, pictures: Sequence[Picture]) -> Image.Image:
    """The original with its boxes; for a bad sample, what is wrong with it."""
    if sample.image is not None:
        return with_boxes(sample.image, [p.box for p in pictures[:MOST_BOXES]], layout.panel)
    panel = Image.new("RGB", layout.panel, BAD)
    lines = wrapped(["cannot", "be", "read:", *sample.problem.split()], BODY, PANEL_WIDTH - 40)
    y = (panel.height - len(lines) * line_height(BODY)) // 2
    write(ImageDraw.Draw(panel), (20, y), lines, BODY)
    return panel


def _views(layout: Layout, block: Block, views: Sequence[Picture]) -> Image.Image:
    """The pictures of one group with their captions, in rows as high as each needs to be."""
    rows = [views[i : i + block.columns] for i in range(0, len(views), block.columns)]
    lines = [max(1, *(len(_caption(p, block.cell)) for p in row)) for row in rows]
    heights = [block.picture[1] + 6 + n * line_height(SMALL) + GAP for n in lines]
    top = NAME if layout.stacked else 0
    image = Image.new("RGB", (layout.width, top + sum(heights) - GAP), WHITE)
    pen = ImageDraw.Draw(image)
    if layout.stacked:
        _name(pen, block, layout.zoom, (0, 0))
    for row, y in zip(rows, itertools.accumulate(heights, initial=top), strict=False):
        for column, picture in enumerate(row):
            x, below = column * (block.cell + GAP), y + block.picture[1] + 6
            image.paste(picture.image, (x, y))
            number = badge(picture.box.number, picture.box.colour)
            image.paste(number.convert("RGB"), (x, below), number.getchannel("A"))
            write(pen, (x + number.width + 6, below), _caption(picture, block.cell), SMALL)
    return image


def _caption(picture: Picture, cell: int) -> list[str]:
    """What was drawn for it, in lines that fit beside its number."""
    room = cell - badge(picture.box.number, picture.box.colour).width - 6
    if cell < WORDS_FROM:
        return wrapped(shortened(picture.words), SMALL, room)
    return wrapped(picture.words or ["plain"], SMALL, room, " · ")
