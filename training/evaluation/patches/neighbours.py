"""Nearest neighbours of query patches, in h and in z: a picture, and where they come from."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn.functional import normalize

from patchmill.loaders.common.progress import track
from patchmill.loaders.preview.text import INK, MUTED, font
from patchmill.loaders.recipe import Recipe
from patchmill.training import data
from patchmill.training.evaluation.features import evaluating
from patchmill.training.evaluation.patches.patch_means import PatchMeans
from patchmill.training.evaluation.trained_run import Space, TrainedRun
from patchmill.training.ranks.distributed import World

FILE = "neighbours.png"
IMAGES = 250  # number of images whose patches are compared
PER_IMAGE = 16  # patches per image
NEAREST = 8
SIDE, GAP, HEAD = 48, 4, 24  # pixels: a patch, the gap between two, the row of titles


class EmbeddedPatches(NamedTuple):
    pixels: np.ndarray  # [P, SIDE, SIDE, 3] uint8
    images: torch.Tensor  # [P] id of each patch's image
    cells: torch.Tensor  # [P] index of each patch on its image's grid, row by row
    labels: torch.Tensor | None  # [P] class of each patch's image
    embeddings: dict[Space, torch.Tensor]  # [P, d] each


def draw(patches: EmbeddedPatches, queries: int) -> Image.Image:
    """Draw one row per query: the patch, its nearest in h and, if there is a projector, in z."""
    chosen = torch.linspace(0, len(patches.images) - 1, queries).round().long()
    spaces = list(patches.embeddings)
    block = NEAREST * (SIDE + GAP)
    sheet = Image.new(
        "RGB",
        (SIDE + GAP + len(spaces) * (block + 4 * GAP), HEAD + len(chosen) * (SIDE + GAP)),
        (255, 255, 255),
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((0, HEAD / 2), "patch", INK, font(12), anchor="lm")
    for number, space in enumerate(spaces):
        left = SIDE + 5 * GAP + number * (block + 4 * GAP)
        pen.text((left, HEAD / 2), f"nearest in {space}", MUTED, font(12), anchor="lm")
        found = nearest(patches.embeddings[space], patches.images, chosen, NEAREST)
        for row, indices in enumerate(found.tolist()):
            for column, index in enumerate(indices):
                _put(sheet, patches.pixels[index], left + column * (SIDE + GAP), row)
    for row, index in enumerate(chosen.tolist()):
        _put(sheet, patches.pixels[index], 0, row)
    return sheet


def nearest(
    embeddings: torch.Tensor, images: torch.Tensor, queries: torch.Tensor, count: int
) -> torch.Tensor:
    """Return the rows of other images with the largest cosine to the rows `queries`: [Q, count]."""
    rows = normalize(embeddings, dim=1)
    cosine = rows[queries] @ rows.T
    cosine[images[queries][:, None] == images[None]] = -torch.inf
    others = int((images[queries][:, None] != images[None]).sum(1).min())
    return cosine.topk(min(count, others)).indices


def locality(patches: EmbeddedPatches) -> dict[Space, dict[str, float]]:
    """Measure where the patches nearest to each patch come from, by space.

    place: 1 if the NEAREST of other images are at the same place as the patch in its own image, 0
        if anywhere
    own: share from the patch's own image among its nearest patches, as many as its image has others
    class: share of the patch's class among the NEAREST of other images
    """
    side = math.isqrt(int(patches.cells.max()) + 1)
    places = torch.stack([patches.cells // side, patches.cells % side], 1).float()
    chance = torch.cdist(places, places).mean()
    own = patches.images[:, None] == patches.images
    others = int(own.sum(1).min()) - 1
    every = torch.arange(len(places))
    found: dict[Space, dict[str, float]] = {}
    for space, embeddings in patches.embeddings.items():
        near = nearest(embeddings, patches.images, every, NEAREST)
        distance = (places[:, None] - places[near]).norm(dim=2).mean()
        rows = normalize(embeddings, dim=1)
        closest = (rows @ rows.T).fill_diagonal_(-torch.inf).topk(others).indices
        found[space] = {
            "place": (1 - distance / chance).item(),
            "own": own.gather(1, closest).float().mean().item(),
        }
        if patches.labels is not None:
            alike = patches.labels[:, None] == patches.labels[near]
            found[space]["class"] = alike.float().mean().item()
    return found


@torch.no_grad()
def collect(run: TrainedRun, recipe: Recipe) -> EmbeddedPatches:
    """Embed the patches of some test images, on this rank only."""
    one_rank = World(device=run.world.device)
    loader = data.open_evaluation(run.config, one_rank, "test", recipe, 16, labelled=False)
    means, embedded = PatchMeans(run), []
    pixels, images, cells, labels = [], [], [], []
    with (
        evaluating(run.method, loader),
        track("patches for the picture of neighbours", IMAGES, unit="images") as advance,
    ):
        for batch in loader:
            (group,) = batch.views
            views = batch.views[group].transpose(0, 1).flatten(0, 1)
            with torch.autocast(views.device.type, run.amp, enabled=run.amp is not None):
                embedded.append([rows.cpu() for rows in means.embed(views)])
            pixels.append(_to_bytes(views, loader.recipe))
            per_image = views.shape[0] // len(batch)
            images.append(batch.ids.repeat(per_image))
            cells.append(torch.arange(per_image).repeat_interleave(len(batch)))
            if batch.labels is not None:
                labels.append(batch.labels.cpu().repeat(per_image))
            advance(len(batch))
            if sum(map(len, images)) >= IMAGES * PER_IMAGE:
                break
    spaces = zip(run.spaces, zip(*embedded, strict=True), strict=True)
    embeddings = {space: torch.cat(list(rows)) for space, rows in spaces}
    return EmbeddedPatches(
        np.concatenate(pixels),
        torch.cat(images),
        torch.cat(cells),
        torch.cat(labels) if labels else None,
        embeddings,
    )


def _to_bytes(views: torch.Tensor, recipe: Recipe) -> np.ndarray:
    """Undo the normalisation, and resize to SIDE x SIDE uint8."""
    (group,) = recipe.views
    mean, std = (
        torch.tensor(value, device=views.device)[:, None, None] for value in (group.mean, group.std)
    )
    pixels = (views.float() * std + mean).clamp(0, 1)
    scaled = torch.nn.functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    return (scaled * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _put(sheet: Image.Image, pixels: np.ndarray, x: int, row: int) -> None:
    sheet.paste(Image.fromarray(pixels), (x, HEAD + row * (SIDE + GAP)))
