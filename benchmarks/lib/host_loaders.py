"""Loaders of training frameworks: as their own examples make views, and by patchmill's adapters.

Both make the same number of views of the same size from the same folder of class folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from patchmill.benchmarks.peers.torchvision import ViewDataset
from patchmill.loaders import Colour, Crop, Recipe, Views, presets
from patchmill.loaders.recipe import IMAGENET_MEAN, IMAGENET_STD

SIZE = 224
SIMCLR = presets.simclr(SIZE)
MAE = Recipe((Views("view", 1, SIZE, Crop((0.2, 1.0)), interpolation="bicubic"),), name="mae")
JITTER = Colour(0.4, 0.4, 0.4, p=1.0, grey=0.0)  # train.py --color-jitter 0.4, the default
TIMM = Recipe((Views("view", 1, SIZE, colour=JITTER, interpolation="bicubic"),), name="imagenet")


@dataclass(frozen=True)
class Settings:
    folder: Path
    batch_size: int
    workers: int

    @property
    def torch(self) -> dict[str, Any]:
        """The same for torch's DataLoader."""
        sizes = {"batch_size": self.batch_size, "num_workers": self.workers}
        return {**sizes, "shuffle": True, "drop_last": True}


@dataclass(frozen=True)
class Host:
    recipe: Recipe
    before: Callable[[Recipe, Settings], Iterable[Any]]
    usual: str  # description of that
    adapter: str | None = None  # of patchmill's loader


def by_torchvision(recipe: Recipe, settings: Settings) -> Iterable[Any]:
    paths = sorted(map(str, settings.folder.glob("*/*")))
    return DataLoader(ViewDataset(paths, recipe), **settings.torch)


def by_lightly(recipe: Recipe, settings: Settings) -> Iterable[Any]:
    from lightly.data import LightlyDataset
    from lightly.transforms import SimCLRTransform

    dataset = LightlyDataset(str(settings.folder), transform=SimCLRTransform(SIZE))
    return DataLoader(dataset, **settings.torch)


def by_stable_pretraining(recipe: Recipe, settings: Settings) -> Iterable[Any]:
    from stable_pretraining.data import FromTorchDataset, transforms
    from torchvision.datasets import ImageFolder

    def view() -> Any:
        return transforms.Compose(
            transforms.RGB(),
            transforms.RandomResizedCrop((SIZE, SIZE), scale=(0.08, 1.0)),
            transforms.RandomHorizontalFlip(p=0.5),
            transforms.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.PILGaussianBlur(p=0.5),
            transforms.ToImage(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        )

    both = transforms.MultiViewTransform([view(), view()])
    images = ImageFolder(str(settings.folder))
    dataset = FromTorchDataset(images, names=["image", "label"], transform=both)
    return DataLoader(dataset, **settings.torch)


def by_timm(recipe: Recipe, settings: Settings) -> Iterable[Any]:
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(settings.folder))
    return create_loader(
        dataset,
        (3, SIZE, SIZE),
        settings.batch_size,
        is_training=True,
        use_prefetcher=False,
        color_jitter=0.4,
        interpolation="bicubic",
        num_workers=settings.workers,
        persistent_workers=False,
    )


HOSTS = {
    "dino": Host(presets.dino(), by_torchvision, "main_dino.py's transforms"),
    "torchvision": Host(SIMCLR, by_torchvision, "torchvision's transforms"),
    "lightly": Host(SIMCLR, by_lightly, "SimCLRTransform", "as_lightly"),
    "stable-pretraining": Host(
        SIMCLR, by_stable_pretraining, "MultiViewTransform", "as_stable_pretraining"
    ),
    "transformers": Host(MAE, by_torchvision, "run_mae.py's transforms", "as_transformers"),
    "timm": Host(TIMM, by_timm, "create_loader", "as_timm"),
}
