"""A picture of patches beside those that are nearest to them, in h and in z, of other images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn.functional import normalize

from patchmill.loaders.common.progress import track
from patchmill.loaders.preview.text import INK, MUTED, font
from patchmill.loaders.recipe import Recipe
from patchmill.training import data
from patchmill.training.evaluation.features import evaluating
from patchmill.training.evaluation.patches import Means
from patchmill.training.ranks.distributed import World

if TYPE_CHECKING:
    from patchmill.training.evaluation.trained import Space, Trained

FILE = "neighbours.png"
OF_AN_IMAGE = 16
IMAGES = 250  # of which patches are compared
NEAREST = 8
SIDE, GAP, HEAD = 48, 4, 24  # pixels of the picture


class Patches(NamedTuple):
    pictures: np.ndarray  # [P, SIDE, SIDE, 3] uint8
    images: torch.Tensor  # [P] of which image each is
    embeddings: dict[Space, torch.Tensor]  # [P, d] each


def draw(run: Trained, recipe: Recipe, queries: int) -> Image.Image:
    """One row for each query: the patch, its nearest in h, and, if there is a z, those in z."""
    patches = collect(run, recipe)
    chosen = torch.linspace(0, len(patches.images) - 1, queries).round().long()
    spaces = list(patches.embeddings)
    wide = NEAREST * (SIDE + GAP)
    sheet = Image.new(
        "RGB",
        (SIDE + GAP + len(spaces) * (wide + 4 * GAP), HEAD + len(chosen) * (SIDE + GAP)),
        (255, 255, 255),
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((0, HEAD / 2), "patch", INK, font(12), anchor="lm")
    for number, space in enumerate(spaces):
        left = SIDE + 5 * GAP + number * (wide + 4 * GAP)
        pen.text((left, HEAD / 2), f"nearest in {space}", MUTED, font(12), anchor="lm")
        found = nearest(patches.embeddings[space], patches.images, chosen, NEAREST)
        for row, places in enumerate(found.tolist()):
            for column, place in enumerate(places):
                _put(sheet, patches.pictures[place], left + column * (SIDE + GAP), row)
    for row, place in enumerate(chosen.tolist()):
        _put(sheet, patches.pictures[place], 0, row)
    return sheet


def nearest(
    embeddings: torch.Tensor, images: torch.Tensor, queries: torch.Tensor, count: int
) -> torch.Tensor:
    """[Q, count]: for rows `queries`, the rows of other images with the largest cosine."""
    rows = normalize(embeddings, dim=1)
    cosine = rows[queries] @ rows.T
    cosine[images[queries][:, None] == images[None]] = -torch.inf
    others = int((images[queries][:, None] != images[None]).sum(1).min())
    return cosine.topk(min(count, others)).indices


@torch.no_grad()
def collect(run: Trained, recipe: Recipe) -> Patches:
    """The patches of some test images, by this rank alone."""
    alone = World(device=run.world.device)
    loader = data.open_evaluation(run.config, alone, "test", recipe, 16, labelled=False)
    means, pictures, images, found = Means(run), [], [], []
    with (
        evaluating(run.method, loader),
        track("patches for the picture of neighbours", IMAGES, unit="images") as advance,
    ):
        for batch in loader:
            (group,) = batch.views
            views = batch.views[group].transpose(0, 1).flatten(0, 1)
            with torch.autocast(views.device.type, run.amp, enabled=run.amp is not None):
                found.append([rows.cpu() for rows in means.embed(views)])
            pictures.append(_shown(views, loader.recipe))
            images.append(batch.ids.repeat(views.shape[0] // len(batch)))
            advance(len(batch))
            if sum(map(len, images)) >= IMAGES * OF_AN_IMAGE:
                break
    spaces = zip(run.spaces, zip(*found, strict=True), strict=True)
    embeddings = {space: torch.cat(list(rows)) for space, rows in spaces}
    return Patches(np.concatenate(pictures), torch.cat(images), embeddings)


def _shown(views: torch.Tensor, recipe: Recipe) -> np.ndarray:
    """Back from the network's numbers to bytes, at the picture's size."""
    (group,) = recipe.views
    mean, std = (
        torch.tensor(it, device=views.device)[:, None, None] for it in (group.mean, group.std)
    )
    pixels = (views.float() * std + mean).clamp(0, 1)
    scaled = torch.nn.functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    return (scaled * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _put(sheet: Image.Image, picture: np.ndarray, x: int, row: int) -> None:
    sheet.paste(Image.fromarray(picture), (x, HEAD + row * (SIDE + GAP)))
