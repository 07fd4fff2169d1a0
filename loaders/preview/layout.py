"""Layout of a contact sheet, which depends only on the recipe. All lengths are in pixels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from patchmill.loaders.preview.text import Rgb, line_height
from patchmill.loaders.preview.tiles import group_colour, tile_size
from patchmill.loaders.recipe import Recipe, Views

TITLE, BODY, SMALL = 24.0, 14.0, 13.0  # font sizes

MARGIN, GROUP_GAP, SAMPLE_GAP, TILE_GAP = 28, 30, 36, 12
NAME_HEIGHT, LEGEND_HEIGHT = 28, 22  # of a group's name, and of the legend
PANEL_WIDTH, MIN_PANEL, MAX_PANEL = 300, 200, 260  # of an original: width, and range of heights
MIN_WIDTH = 680  # of the sheet
VIEWS_WIDTH = 1060
MIN_CELL = 72  # enough for a caption


@dataclass(frozen=True)
class Block:
    """Layout of one group's tiles."""

    group: Views
    colour: Rgb
    tile: tuple[int, int]  # width and height
    cell: int  # width of a column
    columns: int

    @property
    def width(self) -> int:
        return self.columns * (self.cell + TILE_GAP) - TILE_GAP


@dataclass(frozen=True)
class Layout:
    blocks: tuple[Block, ...]
    stacked: bool  # groups are below one another, each with its name
    zoom: float

    @property
    def lefts(self) -> list[int]:
        """x of each block."""
        first = MARGIN + PANEL_WIDTH + GROUP_GAP
        if self.stacked:
            return [first] * len(self.blocks)
        steps = (block.width + GROUP_GAP for block in self.blocks[:-1])
        return list(itertools.accumulate(steps, initial=first))

    @property
    def width(self) -> int:
        rights = [x + block.width for block, x in zip(self.blocks, self.lefts, strict=True)]
        return max(*rights, MIN_WIDTH - MARGIN) + MARGIN

    @property
    def panel(self) -> tuple[int, int]:
        """Width and height of the panel with the original."""
        first = self.blocks[0]
        height = first.tile[1] if first.columns == first.group.count else MAX_PANEL
        return PANEL_WIDTH, min(max(height, MIN_PANEL), MAX_PANEL)


def layout_of(recipe: Recipe, zoom: float) -> Layout:
    """Put the groups side by side if they fit, each about as high as the first; else stack them."""
    blocks = []
    for group in recipe.views:
        tile = tile_size(group, zoom)
        cell = max(tile[0], MIN_CELL)
        blocks.append(Block(group, group_colour(recipe, group), tile, cell, group.count))
    in_a_row = Layout(tuple(_as_high_as(blocks[0], block) for block in blocks), False, zoom)
    if in_a_row.width <= MARGIN + PANEL_WIDTH + GROUP_GAP + VIEWS_WIDTH + MARGIN:
        return in_a_row
    return Layout(tuple(_filling(block) for block in blocks), len(blocks) > 1, zoom)


def _as_high_as(first: Block, block: Block) -> Block:
    """Choose the columns so that the rows are about as high as one row of the first group."""
    high, low = (b.tile[1] + 2 * line_height(SMALL) + TILE_GAP for b in (first, block))
    return replace(block, columns=-(-block.group.count // max(1, round(high / low))))


def _filling(block: Block) -> Block:
    """Choose the columns so that rows are few and about equally long."""
    most = max(1, (VIEWS_WIDTH + TILE_GAP) // (block.cell + TILE_GAP))
    rows = -(-block.group.count // most)
    return replace(block, columns=-(-block.group.count // rows))
