"""Find the mask of every image: a file of the same name in `annotations` or `masks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.folder_listing import EXTENSIONS

IMAGES = "images"
ADE20K, OTHERS = "annotations", "masks"  # the folder of masks
SPLITS = {"train": ("training", "train"), "test": ("validation", "val", "test")}
MASK_EXTENSIONS = ("png", "bmp", "tif", "tiff", "gif")  # lossless


class Pair(NamedTuple):
    image: Path
    mask: Path


@dataclass(frozen=True)
class Pairs:
    name: str  # of the folder of images
    pairs: Sequence[Pair]
    ade20k: bool  # the masks are in `annotations`: 0 in a mask is not a class


def open_image_folder(root: str, split: Literal["train", "test"]) -> Pairs:
    """Find pairs in `root/images/training` and `root/annotations/training`, or `validation`."""
    images, names = Path(root, IMAGES), SPLITS[split]
    if not images.is_dir():
        raise MillError(f"root={root} has no folder {IMAGES}: it must hold {IMAGES} and {ADE20K}")
    masks = _mask_folder(Path(root))
    for name in names:
        if (images / name).is_dir():
            if not (masks / name).is_dir():
                raise MillError(f"there are images in {images / name}, but no {masks / name}")
            return _pair(images / name, masks / name)
    raise MillError(
        f"{images} has no {' or '.join(names)}: for other names, use data.train=DIR data.test=DIR, "
        f"each with {IMAGES} and {OTHERS}"
    )


def find_pairs(text: str, key: str) -> Pairs:
    """Find pairs in a folder with `images` and `masks`."""
    folder = Path(text)
    if not (folder / IMAGES).is_dir():
        raise MillError(
            f"{key}={text} has no pixel labels: name a folder with {IMAGES} and {OTHERS}, or "
            "ADE20K's with root=DIR, or scenes (streams and shards have only image labels)"
        )
    return _pair(folder / IMAGES, _mask_folder(folder))


def _mask_folder(folder: Path) -> Path:
    for name in (ADE20K, OTHERS):
        if (folder / name).is_dir():
            return folder / name
    raise MillError(f"{folder} has {IMAGES}, but no {ADE20K} or {OTHERS} next to them")


def _pair(images: Path, masks: Path) -> Pairs:
    by_name = _files(masks, MASK_EXTENSIONS)
    listed = _files(images, EXTENSIONS)
    if not listed:
        raise MillError(f"there are no images in {images}: looked for {', '.join(EXTENSIONS)}")
    missing = [path for name, path in listed.items() if name not in by_name]
    if missing:
        raise MillError(
            f"{len(missing):,} of {len(listed):,} images in {images} have no mask of the same name "
            f"in {masks}, {missing[0].name} first: add the masks ({', '.join(MASK_EXTENSIONS)}), "
            "or move the images away"
        )
    pairs = [Pair(path, by_name[name]) for name, path in listed.items()]
    return Pairs(str(images), pairs, ADE20K in masks.parts[-2:])


def _files(folder: Path, extensions: Sequence[str]) -> dict[str, Path]:
    """Map relative path without extension -> path, for all files below `folder`, sorted."""
    endings = {f".{extension}" for extension in extensions}
    return {
        str(path.relative_to(folder).with_suffix("")): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in endings and not path.name.startswith(".")
    }
