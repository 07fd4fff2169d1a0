"""Draw contact sheets: views of some images, as a recipe makes them for training, or masks.

patchmill preview DATA --recipe 'dino(local_crops=6)' --out sheet.png
patchmill preview DATA --masks --method rbd --out sheet.png
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchmill.loaders import recipe as recipes
from patchmill.loaders.common.arguments import Parser, refuse_options, whole_number
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief, say
from patchmill.loaders.files.writing import atomic_path
from patchmill.loaders.recipe_load import load_recipe

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from patchmill.loaders.batch import ViewBatch
    from patchmill.loaders.pipelines.extra import Extra
    from patchmill.loaders.plan.draw import Plan
    from patchmill.loaders.preview.paste import FindInputs, PasteInputs
    from patchmill.loaders.preview.view_sheet import SheetSample
    from patchmill.loaders.sources import Source

FORMATS = (".png", ".jpg", ".jpeg")


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(arguments)
    _check_out(args.out)
    if args.masks or args.method:
        refuse_options(arguments, ["--recipe", "--backgrounds"], "is for views, not for masks")
    if args.ids is not None:
        refuse_options(arguments, ["--count"], "shows the first samples, but --ids names others")
    options = {"seed": args.seed, "epoch": args.epoch, "ids": _parse_ids(args.ids)}
    show_masks = args.masks or args.method
    options["count"] = (12 if show_masks else 4) if args.count is None else args.count
    if show_masks:
        from patchmill.loaders.preview.mask_sheet import mask_sheet

        image = mask_sheet(args.data, args.method, **options)
    else:
        image = contact_sheet(args.data, args.recipe, backgrounds=args.backgrounds, **options)
    _save(image, args.out)
    say(f"{args.out}: {image.width} x {image.height} px")


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
    """Draw originals with the boxes of their views, and the views as loaders.build makes them.

    Shows the samples `ids`, or else the first `count` in the order of that epoch. `backgrounds` and
    `masks` are those of `build`.
    """
    from patchmill.loaders.preview.samples import choose_ids
    from patchmill.loaders.preview.view_sheet import draw_view_sheet
    from patchmill.loaders.sources import open_source

    title = recipe.name if isinstance(recipe, recipes.Recipe) else str(recipe)
    recipe, source = load_recipe(recipe), open_source(data)
    ids = choose_ids(source, count, seed, epoch, ids)
    samples = draw_samples(source, recipe, ids, seed, epoch, backgrounds, masks)
    return draw_view_sheet(samples, recipe, title, f"{source.name} · seed {seed} · epoch {epoch}")


def draw_samples(
    source: Source,
    recipe: recipes.Recipe,
    ids: Sequence[int],
    seed: int,
    epoch: int,
    backgrounds: str | Path | Source | None = None,
    masks: str | Path | None = None,
) -> list[SheetSample]:
    """Render the views of samples `ids` in that epoch, as loaders.build makes them."""
    import torch

    from patchmill.loaders.pipelines.extra import open_extra
    from patchmill.loaders.preview.paste import inputs_finder

    find_paste_inputs = inputs_finder(source, recipe, backgrounds, seed, epoch, masks)
    _compile(recipe)
    extra = open_extra(recipe, seed, torch.uint8, torch.device("cpu"))
    return [_sample(source, find_paste_inputs, recipe, extra, seed, epoch, id) for id in ids]


def _sample(
    source: Source,
    find_paste_inputs: FindInputs | None,
    recipe: recipes.Recipe,
    extra: Extra | None,
    seed: int,
    epoch: int,
    id: int,
) -> SheetSample:
    from patchmill.loaders.plan import draw
    from patchmill.loaders.preview.paste import composite
    from patchmill.loaders.preview.samples import class_name, decode_sample
    from patchmill.loaders.preview.view_sheet import SheetSample

    label, (image, problem) = class_name(source, id), decode_sample(source, id)
    if image is None:
        return SheetSample(id, label, problem=problem)
    plan = draw.draw(recipe, seed, epoch, [id], [image.shape[:2]])
    paste = find_paste_inputs and find_paste_inputs(id, image, plan.rows)
    views = _render(id, image, recipe, plan, paste)
    sample = SheetSample(id, label, image, views)
    if extra is not None:
        extra.apply(views.views, epoch, views.ids.numpy())
        sample = replace(sample, extra=extra.happened(epoch, id))
    if paste is None:
        return sample
    pasted = composite(image, plan.rows[0], paste)
    return replace(sample, mask=paste.mask, composite=pasted)


def _render(
    id: int, image: np.ndarray, recipe: recipes.Recipe, plan: Plan, paste: PasteInputs | None = None
) -> ViewBatch:
    """Render one sample as a batch of uint8 views, without normalisation.

    Views are rendered as float32 and rounded, which is exact, to share the compiled code that
    loaders mostly use.
    """
    import torch

    from patchmill.kernels.views.cpu import render
    from patchmill.loaders.batch import ViewBatch
    from patchmill.loaders.plan import draw

    targets = draw.targets(recipe)
    views = render.render(
        [image],
        plan.rows,
        [replace(target, mean=(0.0,) * 3, std=(1 / 255,) * 3) for target in targets],
        masks=[paste.mask.usable if paste else None],
        backgrounds=[paste.background if paste else None],
    )
    views = {name: (view + 0.5).to(torch.uint8) for name, view in views.items()}
    return ViewBatch(views, torch.tensor([id]), None, plan.rows, plan.shapes, targets)


def _compile(recipe: recipes.Recipe) -> None:
    """Compile the kernels and announce it, after slow imports."""
    import numpy as np
    import torch  # noqa: F401

    from patchmill.kernels.common.compiling import announce_compilation
    from patchmill.kernels.views.cpu import render  # noqa: F401
    from patchmill.loaders.plan import draw
    from patchmill.loaders.preview.paste import PasteInputs
    from patchmill.loaders.preview.samples import Mask

    dot = np.zeros((1, 1, 3), np.uint8)
    pastes = any(group.paste for group in recipe.views)
    with announce_compilation():
        paste = PasteInputs(Mask(dot[..., 0])) if pastes else None
        _render(0, dot, recipe, draw.draw(recipe, 0, 0, [0], [(1, 1)]), paste)


# ------------------------------------------------------------------------------------ command line


def parser() -> Parser:
    options = Parser(
        "patchmill preview",
        "DATA",
        "Draw a contact sheet of some images with the boxes of their views, and the views, exactly "
        "as a loader makes them for training with the same recipe and seed.",
        [
            "patchmill preview scenes:64 --recipe 'dino(local_crops=6)' --count 3",
            "patchmill preview photos --masks --out masks.png",
        ],
    )
    options.add_argument("data", metavar="DATA", help="a folder of images, or scenes:64")
    options.add_argument(
        "--recipe",
        default="dino",
        help="a preset, optionally with its knobs, as in 'dino(local_crops=6)'; or a YAML file "
        "(default: %(default)s)",
    )
    options.add_argument(
        "--out",
        type=Path,
        default=Path("sheet.png"),
        help=f"file to write: {', '.join(FORMATS)} (default: %(default)s)",
    )
    options.add_argument(
        "--count", type=int, help="number of samples to show (default: 4, or 12 for masks)"
    )
    options.add_argument(
        "--seed", type=int, default=0, help="as in training (default: %(default)s)"
    )
    options.add_argument(
        "--epoch", type=int, default=0, help="as in training, from 0 (default: %(default)s)"
    )
    options.add_argument(
        "--ids",
        metavar="3,7",
        help="show these samples instead of the first of the epoch",
    )
    options.add_argument(
        "--backgrounds", metavar="DIR", help="paste on these images instead of those of the data"
    )
    options.add_argument(
        "--masks",
        action="store_true",
        help="show masks as copy-paste would use them",
    )
    options.add_argument(
        "--method", help="show masks computed now: rbd, gs, mc, or 'learned(weights=\"FILE\")'"
    )
    return options


def _parse_ids(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    numbers = [number for part in parts if (number := whole_number(part)) is not None]
    if len(numbers) < len(parts):
        raise MillError(
            f"cannot read --ids {brief(text)}: write sample numbers with commas, as in 3,7"
        )
    return numbers


def _check_out(path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        raise MillError(f"cannot write {path}: its name must end in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise MillError(f"cannot write {path}: there is no folder {path.parent}")


def _save(image: Image, path: Path) -> None:
    temporary = f".{os.getpid()}-{path.name}"  # PIL chooses the format by the suffix
    try:
        with atomic_path(path, temporary) as partial:
            image.save(partial, optimize=True, quality=92)
    except OSError as error:
        raise MillError(f"cannot write {path}: {error.strerror or error}") from None
