"""Batches of noise and tiny networks for tests of methods."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from patchmill.kernels.views.decisions import ROW, Target
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.plan import draw, laws
from patchmill.loaders.recipe_load import load_recipe
from patchmill.training.methods import METHODS, Progress

NOW = Progress(step=0, steps=10, epoch=0.0, epochs=1)
SMALL = {
    "moco": dict(dim=4, hidden=5, queue=32),
    "dilo": dict(dim=4, hidden=0, queue=32, symmetric=True),
    "simclr": dict(hidden=5, dim=4),
    "vicreg": dict(expander=[8, 8]),
    "tcr": dict(hidden=8, dim=4),
    "bagssl": dict(hidden=[8], dim=4),
    "emp_ssl": dict(hidden=8, dim=4),
    "byol": dict(hidden=8, dim=4),
    "dino": dict(hidden=8, dim=4, prototypes=16, freeze=0, momentum=1.0, centre_momentum=1.0),
    "gtsa": dict(dim=4, bins=(3, 2), match_after=-1),
    "lejepa": dict(hidden=[8], dim=4, directions=16),
    "selfie": dict(views="selfie(size=16)", masked=0.5, heads=2, blocks=1, hidden=8, dropout=0.0),
    "supervised": dict(),
}
VIEWS = {"bagssl": 3, "emp_ssl": 3, "selfie": 4}  # of a batch; of others 2
TURNED = "gtsa(global_size=16, local_size=8, local_crops=2)"


class Tiny(nn.Module):
    """A backbone with a batch norm: [N, 3, h, w] -> [N, 6]."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu().mean((2, 3))


def make(name: str, seed: int = 0, **changes: Any) -> Any:
    """A method with tiny networks."""
    torch.manual_seed(seed)
    method = METHODS[name]
    settings = method.Settings(**(SMALL[name] | changes))
    backbone = Mapped() if name == "gtsa" else Tiny()
    return method(settings, backbone, *([3] if method.needs_labels else []))


def example(name: str) -> ViewBatch:
    """A batch of 16 images for a method that `make` made."""
    return crops(16, TURNED) if name == "gtsa" else noise(16, views=VIEWS.get(name, 2))


def noise(count: int, views: int = 2, size: int = 8, seed: int = 0) -> ViewBatch:
    return noise_groups(count, {"views": (views, size)}, seed)


def noise_groups(count: int, groups: dict[str, tuple[int, int]], seed: int = 0) -> ViewBatch:
    """A batch with several view groups: their numbers of views, and their sizes."""
    generator = torch.Generator().manual_seed(seed)
    pixels = {
        name: torch.randn(views, count, 3, size, size, generator=generator).transpose(0, 1)
        for name, (views, size) in groups.items()
    }
    ids, total = torch.arange(count), sum(views for views, _ in groups.values())
    targets = tuple(
        Target(name, views, size, False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        for name, (views, size) in groups.items()
    )
    shapes = np.full((count, 2), max(size for _, size in groups.values()), np.int32)
    return ViewBatch(pixels, ids, ids % 3, np.zeros((count, total), ROW), shapes, targets)


def step(method: nn.Module, batch: ViewBatch, lr: float = 0.1) -> torch.Tensor:
    """Take one step of plain gradient descent; returns the loss before it."""
    loss = method(batch).loss
    method.zero_grad()
    loss.backward()
    with torch.no_grad():
        for param in method.parameters():
            if param.grad is not None:
                param -= lr * param.grad
    return loss.detach()


class Mapped(Tiny):
    """Tiny, with feature maps at a stride of 2, as timm's networks give them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)

    def forward_intermediates(self, x: torch.Tensor, **_: object) -> list[torch.Tensor]:
        return [self.norm(self.conv(x))]


class Smooth(Mapped):
    """Mapped without batch norm: images have nothing to do with one another."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()


def crops(count: int, text: str, seed: int = 0) -> ViewBatch:
    """Noise with the decision rows that a recipe draws for photo-sized images."""
    recipe = load_recipe(text)
    shapes = np.random.default_rng(seed).integers(200, 600, (count, 2)).astype(np.int32)
    batch = noise_groups(count, {group.name: (group.total, group.size) for group in recipe.views})
    rows = draw.draw(recipe, seed, 0, np.arange(count), shapes).rows
    return replace(batch, rows=rows, shapes=shapes, targets=laws.targets(recipe))
