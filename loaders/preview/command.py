"""Contact sheets: what a recipe makes of some images, drawn and rendered as for training.

python -m patchmill.loaders.preview DATA --recipe 'dino(local_crops=6)' --out sheet.png
python -m patchmill.loaders.preview DATA --masks --method rbd --out sheet.png
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchmill.loaders import recipe as recipes
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe_load import load_recipe

if TYPE_CHECKING:
    from PIL.Image import Image

    from patchmill.loaders.batch import ViewBatch
    from patchmill.loaders.plan.draw import Plan
    from patchmill.loaders.preview.paste import Paste, Pasting
    from patchmill.loaders.preview.sheet import Sample
    from patchmill.loaders.sources import Source

FORMATS = (".png", ".jpg", ".jpeg")


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    _check_out(given.out)
    which = {"seed": given.seed, "epoch": given.epoch, "ids": _numbers(given.ids)}
    masked = given.masks or given.method
    count = (12 if masked else 4) if given.count is None else given.count
    if masked:
        from patchmill.loaders.preview.masks import mask_sheet

        image = mask_sheet(given.data, given.method, count=count, **which)
    else:
        which["backgrounds"] = given.backgrounds
        image = contact_sheet(given.data, given.recipe, count=count, **which)
    _save(image, given.out)
    print(f"{given.out}: {image.width} x {image.height} px")


def contact_sheet(
    data: str | Path | Source,
    recipe: recipes.Recipe | str | Path,
    *,
    count: int = 4,
    seed: int = 0,
    epoch: int = 0,
    ids: Sequence[int] | None = None,
    backgrounds: str | Path | Source | None = None,
    masks: str | Path | None = None,
) -> Image:
    """The originals with the boxes of their views, and the views, as loaders.build would make them.

    Shows the samples `ids`, or else the first `count` in the order of that epoch. `backgrounds` and
    `masks` are what `build` takes.
    """
    from patchmill.loaders.preview.paste import paster
    from patchmill.loaders.preview.samples import chosen
    from patchmill.loaders.preview.sheet import sheet
    from patchmill.loaders.sources import open_source

    title = recipe.name if isinstance(recipe, recipes.Recipe) else str(recipe)
    recipe, source = load_recipe(recipe), open_source(data)
    ids = chosen(source, count, seed, epoch, ids)
    paste = paster(source, recipe, backgrounds, seed, epoch, masks)
    _compile(recipe)
    samples = [_sample(source, paste, recipe, seed, epoch, id) for id in ids]
    return sheet(samples, recipe, title, f"{source.name} · seed {seed} · epoch {epoch}")


def _sample(
    source: Source, paste: Paste | None, recipe: recipes.Recipe, seed: int, epoch: int, id: int
) -> Sample:
    from patchmill.loaders.plan import draw
    from patchmill.loaders.preview.paste import composite
    from patchmill.loaders.preview.samples import image_of, label_of
    from patchmill.loaders.preview.sheet import Sample

    label, (image, problem) = label_of(source, id), image_of(source, id)
    if image is None:
        return Sample(id, label, problem=problem)
    drawn = draw.draw(recipe, seed, epoch, [id], [image.shape[:2]])
    if paste is None:
        return Sample(id, label, image, _views(id, image, recipe, drawn))
    by = paste(id, image, drawn.rows)
    views, whole = _views(id, image, recipe, drawn, by), composite(image, drawn.rows[0], by)
    return Sample(id, label, image, views, mask=by.mask, composite=whole)


def _views(
    id: int, image: np.ndarray, recipe: recipes.Recipe, drawn: Plan, by: Pasting | None = None
) -> ViewBatch:
    """A batch of one sample. Its views are uint8, which are not normalised: they can be shown."""
    import torch

    from patchmill.kernels.views.cpu import render
    from patchmill.loaders.batch import ViewBatch
    from patchmill.loaders.plan import draw

    targets = draw.targets(recipe)
    views = render.render(
        [image],
        drawn.rows,
        targets,
        dtype=torch.uint8,
        masks=[by.mask.usable if by else None],
        backgrounds=[by.companion if by else None],
    )
    return ViewBatch(views, torch.tensor([id]), None, drawn.rows, drawn.shapes, targets)


def _compile(recipe: recipes.Recipe) -> None:
    """Compile the kernels, with a notice; what is imported first takes its time as well."""
    import torch  # noqa: F401

    from patchmill.kernels.common.jit import announce_compilation
    from patchmill.kernels.views.cpu import render  # noqa: F401
    from patchmill.loaders.plan import draw
    from patchmill.loaders.preview.paste import Pasting
    from patchmill.loaders.preview.samples import Mask

    dot = np.zeros((1, 1, 3), np.uint8)
    pastes = any(group.paste for group in recipe.views)
    with announce_compilation():
        by = Pasting(Mask(dot[..., 0])) if pastes else None
        _views(0, dot, recipe, draw.draw(recipe, 0, 0, [0], [(1, 1)]), by)


# ------------------------------------------------------------------------------------ command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m patchmill.loaders.preview",
        description="Draw a contact sheet: some images with the boxes of their views, and the "
        "views, exactly as a loader makes them for training with the same recipe and seed.",
        epilog="example: python -m patchmill.loaders.preview scenes:64 --recipe "
        "'dino(local_crops=6)' --count 3 --out sheet.png",
    )
    parser.add_argument("data", metavar="DATA", help="a folder of images, or scenes:64")
    parser.add_argument(
        "--recipe",
        default="dino",
        help="a preset, with its knobs if you like, as in 'dino(local_crops=6)'; or a YAML file "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("sheet.png"),
        help=f"where to write the sheet: {', '.join(FORMATS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--count", type=int, help="how many samples to show (default: 4, or 12 with their masks)"
    )
    parser.add_argument("--seed", type=int, default=0, help="as in training (default: %(default)s)")
    parser.add_argument(
        "--epoch", type=int, default=0, help="as in training, from 0 (default: %(default)s)"
    )
    parser.add_argument(
        "--ids",
        metavar="3,7",
        help="show these samples, not the first of the epoch",
    )
    parser.add_argument(
        "--backgrounds", metavar="DIR", help="paste on these images, not on those of the data"
    )
    parser.add_argument(
        "--masks", action="store_true", help="show masks instead, as copy-paste would use them"
    )
    parser.add_argument(
        "--method", help="show masks made now: rbd, gs, mc, or 'learned(weights=\"FILE\")'"
    )
    return parser


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise MillError(f"cannot read --ids {text!r}: write sample numbers with commas, as in 3,7")
    return [int(part) for part in parts]


def _check_out(path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        raise MillError(f"cannot write {path}: its name must end in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise MillError(f"cannot write {path}: there is no folder {path.parent}")


def _save(image: Image, path: Path) -> None:
    """Written under another name first, so that no half-written sheet is ever seen."""
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        image.save(partial, optimize=True, quality=92)
        os.replace(partial, path)
    except OSError as error:
        raise MillError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
