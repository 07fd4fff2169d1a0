"""Where things stand on a contact sheet, which the recipe alone decides. All lengths are pixels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from patchmill.loaders.preview.pictures import colour_of, shown_size
from patchmill.loaders.preview.text import Rgb, line_height
from patchmill.loaders.recipe import Recipe, Views

TITLE, BODY, SMALL = 24.0, 14.0, 13.0  # of text

MARGIN, BESIDE, BETWEEN, GAP = 28, 30, 36, 12  # around all, between groups, samples, and pictures
NAME, SIGN = 28, 22  # heights of a group's name and of the legend's signs
PANEL_WIDTH, LEAST_PANEL, LARGEST_PANEL = 300, 200, 260  # an original's width and range of heights
LEAST_WIDTH = 680
VIEWS_WIDTH = 1060
LEAST_CELL = 72  # a caption needs that much


@dataclass(frozen=True)
class Block:
    """How the pictures of one group are laid out."""

    group: Views
    colour: Rgb
    picture: tuple[int, int]  # width and height
    cell: int  # width of a column
    columns: int

    @property
    def width(self) -> int:
        return self.columns * (self.cell + GAP) - GAP


@dataclass(frozen=True)
class Layout:
    blocks: tuple[Block, ...]
    stacked: bool  # the groups stand below one another, each with its name
    zoom: float

    @property
    def lefts(self) -> list[int]:
        """Where each block begins."""
        first = MARGIN + PANEL_WIDTH + BESIDE
        if self.stacked:
            return [first] * len(self.blocks)
        steps = (block.width + BESIDE for block in self.blocks[:-1])
        return list(itertools.accumulate(steps, initial=first))

    @property
    def width(self) -> int:
        rights = [x + block.width for block, x in zip(self.blocks, self.lefts, strict=True)]
        return max(*rights, LEAST_WIDTH - MARGIN) + MARGIN

    @property
    def panel(self) -> tuple[int, int]:
        """Width and height of an original."""
        first = self.blocks[0]
        height = first.picture[1] if first.columns == first.group.count else LARGEST_PANEL
        return PANEL_WIDTH, min(max(height, LEAST_PANEL), LARGEST_PANEL)


def layout_of(recipe: Recipe, zoom: float) -> Layout:
    """Side by side where the groups fit, the others in about as many rows as the first is high."""
    blocks = []
    for group in recipe.views:
        picture = shown_size(group, zoom)
        cell = max(picture[0], LEAST_CELL)
        blocks.append(Block(group, colour_of(recipe, group), picture, cell, group.count))
    beside = Layout(tuple(_as_high_as(blocks[0], block) for block in blocks), False, zoom)
    if beside.width <= MARGIN + PANEL_WIDTH + BESIDE + VIEWS_WIDTH + MARGIN:
        return beside
    return Layout(tuple(_filling(block) for block in blocks), len(blocks) > 1, zoom)


def _as_high_as(first: Block, block: Block) -> Block:
    """In as many rows as are about as high as one of the first group's."""
    high, low = (b.picture[1] + 2 * line_height(SMALL) + GAP for b in (first, block))
    return replace(block, columns=-(-block.group.count // max(1, round(high / low))))


def _filling(block: Block) -> Block:
    """In as few rows as the width allows, all about equally long."""
    most = max(1, (VIEWS_WIDTH + GAP) // (block.cell + GAP))
    rows = -(-block.group.count // most)
    return replace(block, columns=-(-block.group.count // rows))
