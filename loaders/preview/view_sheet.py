"""Draw a contact sheet of views: a heading, then the original and the views of each sample."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from patchmill.loaders.preview.boxes import WHITE, draw_boxes, legend_box, number_badge
from patchmill.loaders.preview.layout import (
    BODY,
    LEGEND_HEIGHT,
    MARGIN,
    MAX_PANEL,
    NAME_HEIGHT,
    PANEL_WIDTH,
    SAMPLE_GAP,
    SMALL,
    TILE_GAP,
    TITLE,
    Block,
    Layout,
    layout_of,
)
from patchmill.loaders.preview.text import (
    INK,
    MUTED,
    Happened,
    abbreviate,
    abbreviation,
    elide,
    line_height,
    text_width,
    wrap,
    write_lines,
)
from patchmill.loaders.preview.tiles import Tile, grid_shape, view_tiles, zoom_factor
from patchmill.loaders.recipe import Recipe

if TYPE_CHECKING:
    from patchmill.loaders.batch import ViewBatch
    from patchmill.loaders.preview.samples import Mask

LegendItem = tuple[Image.Image | None, str]

RULE, BAD = (223, 227, 231), (225, 228, 232)
MIN_WORDS_WIDTH = 90  # captions of narrower tiles are single letters
MAX_BOXES = 24  # per original: more would hide it


@dataclass(frozen=True)
class SheetSample:
    """One sample: its views as a batch of one, or the reason why there are none."""

    id: int
    label: str  # the name of its class; may be empty
    image: np.ndarray | None = None
    batch: ViewBatch | None = None
    problem: str = ""
    mask: Mask | None = None  # if the recipe pastes
    composite: np.ndarray | None = None  # uint8 [side, side, 3]: the pasted whole image
    extra: Mapping[str, Happened] = field(default_factory=dict)  # of each group's `extra`


def draw_view_sheet(
    samples: Sequence[SheetSample], recipe: Recipe, title: str, about: str
) -> Image.Image:
    """Draw the sheet; `title` is the recipe as written, `about` the data, seed and epoch."""
    zoom = zoom_factor(recipe)
    tiles = [view_tiles(s.batch, recipe, zoom, s.extra) if s.batch else [] for s in samples]
    layout = layout_of(recipe, zoom)
    strips = [_strip(layout, sample, groups) for sample, groups in zip(samples, tiles, strict=True)]
    heading = _heading(layout, _legend(recipe), _abbreviations(layout, tiles), title, about)
    height = (
        heading.height + sum(strip.height + SAMPLE_GAP for strip in strips) - SAMPLE_GAP + MARGIN
    )
    sheet = Image.new("RGB", (layout.width, height), WHITE)
    sheet.paste(heading)
    pen, y = ImageDraw.Draw(sheet), heading.height
    for strip in strips:
        if y > heading.height:
            _rule(pen, layout, y - SAMPLE_GAP // 2)
        sheet.paste(strip, (0, y))
        y += strip.height + SAMPLE_GAP
    return sheet


def _rule(pen: ImageDraw.ImageDraw, layout: Layout, y: int) -> None:
    pen.line((MARGIN, y, layout.width - MARGIN, y), RULE)


# ----------------------------------------------------------------------------------------- heading


def _heading(
    layout: Layout, legend: list[LegendItem], abbreviations: list[str], title: str, about: str
) -> Image.Image:
    """Title and legend, then the names of the groups if they are side by side."""
    width = layout.width - 2 * MARGIN
    lines = wrap(abbreviations, SMALL, width, "     ")
    y = 22 + line_height(TITLE) + line_height(BODY) + 10
    rule = y + LEGEND_HEIGHT + len(lines) * line_height(SMALL) + 12
    image = Image.new(
        "RGB", (layout.width, rule + (18 if layout.stacked else 14 + NAME_HEIGHT)), WHITE
    )
    pen, x = ImageDraw.Draw(image), MARGIN
    write_lines(pen, (x, 22), [elide(title, TITLE, width)], TITLE, INK)
    write_lines(pen, (x, 22 + line_height(TITLE)), [elide(about, BODY, width)], BODY)
    for icon, meaning in legend:
        if icon:
            image.paste(icon, (x, y))
            x += icon.width + 7
        write_lines(pen, (x, y), [meaning], SMALL)
        x += round(text_width(meaning, SMALL)) + 22
    write_lines(pen, (MARGIN, y + LEGEND_HEIGHT), lines, SMALL)
    _rule(pen, layout, rule)
    if not layout.stacked:
        top = image.height - NAME_HEIGHT
        write_lines(pen, (MARGIN, top), ["original"], BODY, INK)
        for block, left in zip(layout.blocks, layout.lefts, strict=True):
            _name(pen, block, layout.zoom, (left, top))
    return image


def _legend(recipe: Recipe) -> list[LegendItem]:
    """Explain the boxes' styles and the numbers in captions."""
    legend: list[LegendItem] = [(legend_box(MUTED), "what a view shows")]
    if any(group.flip != 0 for group in recipe.views):
        legend.append((legend_box(MUTED, flip=True), "flipped"))
    if any(group.turns for group in recipe.views):
        legend.append((legend_box(MUTED, turns=1), "turned: this side is up"))
    if any(group.blur for group in recipe.views):
        legend.append((None, "blur: sigma in pixels"))
    if any(grid_shape(g) != (1, 1) and (g.colour or g.blur or g.solarise) for g in recipe.views):
        legend.append((None, "3/16: 3 of a grid's 16 cells"))
    return legend


def _abbreviations(layout: Layout, tiles: Sequence[list[list[Tile]]]) -> list[str]:
    """Explain the letters in captions, if there are any."""
    if all(block.cell >= MIN_WORDS_WIDTH for block in layout.blocks):
        return []
    words = (words for groups in tiles for g in groups for tile in g for words in tile.words)
    used = dict.fromkeys(name.split()[0] for name in words)
    return [f"{abbreviation(word)} {word}" for word in used]


def _name(pen: ImageDraw.ImageDraw, block: Block, zoom: float, at: tuple[int, int]) -> None:
    """Write the group's name in its colour, and its views."""
    group, (rows, columns) = block.group, grid_shape(block.group)
    views = f"{group.count} x {group.size} px"
    if rows * columns > 1:
        views = f"{group.count} x {rows} x {columns} cells of {group.size} px"
    if zoom != 1:
        views += f", shown x{zoom}" if zoom > 1 else f", shown at {zoom:.0%}"
    write_lines(pen, at, [group.name], BODY, block.colour)
    write_lines(pen, (at[0] + text_width(group.name, BODY) + 10, at[1]), [views], BODY)


# ----------------------------------------------------------------------------------------- samples


def _strip(layout: Layout, sample: SheetSample, tiles: list[list[Tile]]) -> Image.Image:
    """Draw one sample: its original on the left, its views next to it."""
    top = NAME_HEIGHT if layout.stacked else 0
    all_tiles = [tile for group in tiles for tile in group]
    parts, y = [(_original(layout, sample, all_tiles), (MARGIN, top))], 0
    for block, x, group in zip(layout.blocks, layout.lefts, tiles, strict=False):
        image = _group(layout, block, group)
        parts.append((image, (x, y)))
        y += image.height + TILE_GAP if layout.stacked else 0
    strip = Image.new("RGB", (layout.width, max(at[1] + p.height for p, at in parts)), WHITE)
    for part, at in parts:
        strip.paste(part, at)
    return strip


def _original(layout: Layout, sample: SheetSample, tiles: Sequence[Tile]) -> Image.Image:
    """The original with its boxes and its caption."""
    panel = _panel(layout, sample, tiles)
    name = " · ".join(filter(None, [f"sample {sample.id}", sample.label]))
    about, below = _about(sample, len(tiles)), panel.height + 6
    height = below + (1 + len(about)) * line_height(BODY)
    pasted = _pasted(sample)
    image = Image.new("RGB", (PANEL_WIDTH, height + (pasted.height if pasted else 0)), WHITE)
    image.paste(panel)
    if pasted:
        image.paste(pasted, (0, height))
    pen = ImageDraw.Draw(image)
    write_lines(pen, (0, below), [elide(name, BODY, PANEL_WIDTH)], BODY, INK)
    write_lines(pen, (0, below + line_height(BODY)), about, BODY)
    return image


def _pasted(sample: SheetSample) -> Image.Image | None:
    """Draw the mask next to the composite of the whole image."""
    if sample.mask is None or sample.image is None:
        return None
    wide = (PANEL_WIDTH - TILE_GAP) // 2
    tall = min(round(wide * sample.image.shape[0] / sample.image.shape[1]), MAX_PANEL)
    plane, why = sample.mask.plane, sample.mask.why
    parts = [
        (plane, "mask" if sample.mask.usable is not None else f"mask not used: {why}"),
        (sample.composite, "composite" if sample.composite is not None else "no view pasted"),
    ]
    lines = [wrap(caption.split(), SMALL, wide)[:3] for _, caption in parts]
    height = TILE_GAP + tall + 6 + max(map(len, lines)) * line_height(SMALL)
    image = Image.new("RGB", (PANEL_WIDTH, height), WHITE)
    pen = ImageDraw.Draw(image)
    for i, (pixels, _) in enumerate(parts):
        x = i * (wide + TILE_GAP)
        shown = Image.new("RGB", (wide, tall), BAD)
        if pixels is not None:
            shown = Image.fromarray(pixels).resize((wide, tall), Image.Resampling.LANCZOS)
        image.paste(shown, (x, TILE_GAP))
        write_lines(pen, (x, TILE_GAP + tall + 6), lines[i], SMALL)
    return image


def _about(sample: SheetSample, views: int) -> list[str]:
    """Lines below an original, after its name."""
    if sample.image is None:
        return ["in training, another sample replaces it"]
    height, wide, _ = sample.image.shape
    boxes = [f"boxes of the first {MAX_BOXES} views"] if views > MAX_BOXES else []
    return [f"{wide} x {height} px", *boxes]


def _panel(layout: Layout, sample: SheetSample, tiles: Sequence[Tile]) -> Image.Image:
    """The original with its boxes; for a bad sample, the problem."""
    if sample.image is not None:
        return draw_boxes(sample.image, [tile.box for tile in tiles[:MAX_BOXES]], layout.panel)
    panel = Image.new("RGB", layout.panel, BAD)
    lines = wrap(["cannot", "be", "read:", *sample.problem.split()], BODY, PANEL_WIDTH - 40)
    y = (panel.height - len(lines) * line_height(BODY)) // 2
    write_lines(ImageDraw.Draw(panel), (20, y), lines, BODY)
    return panel


def _group(layout: Layout, block: Block, tiles: Sequence[Tile]) -> Image.Image:
    """The tiles of one group with their captions."""
    rows = [tiles[i : i + block.columns] for i in range(0, len(tiles), block.columns)]
    lines = [max(1, *(len(_caption(p, block.cell)) for p in row)) for row in rows]
    heights = [block.tile[1] + 6 + n * line_height(SMALL) + TILE_GAP for n in lines]
    top = NAME_HEIGHT if layout.stacked else 0
    image = Image.new("RGB", (layout.width, top + sum(heights) - TILE_GAP), WHITE)
    pen = ImageDraw.Draw(image)
    if layout.stacked:
        _name(pen, block, layout.zoom, (0, 0))
    for row, y in zip(rows, itertools.accumulate(heights, initial=top), strict=False):
        for column, tile in enumerate(row):
            x, below = column * (block.cell + TILE_GAP), y + block.tile[1] + 6
            image.paste(tile.image, (x, y))
            number = number_badge(tile.box.number, tile.box.colour)
            image.paste(number.convert("RGB"), (x, below), number.getchannel("A"))
            write_lines(pen, (x + number.width + 6, below), _caption(tile, block.cell), SMALL)
    return image


def _caption(tile: Tile, cell: int) -> list[str]:
    """The augmentations of a tile, in lines that fit next to its number."""
    width = cell - number_badge(tile.box.number, tile.box.colour).width - 6
    if cell < MIN_WORDS_WIDTH:
        return wrap(abbreviate(tile.words), SMALL, width)
    return wrap(tile.words or ["plain"], SMALL, width, " · ")
