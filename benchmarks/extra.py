"""Measure the operations that recipes list as extra, on one core, next to torchvision's.

    python benchmarks/extra.py [--size 224] [--rounds 9] [--json FILE]
    python benchmarks/extra.py --picture docs/guides/own-operation.png

Reports milliseconds of CPU time per view to which an operation is applied, in float32 and uint8, as
in a loader's worker, and those of torchvision's function, applied to one view at a time.
`--picture` draws each operation on one view instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from patchmill.benchmarks.lib import report, timing
from patchmill.kernels.views.cpu import render
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.operation import Operation
from patchmill.loaders.operations import (
    AutoContrast,
    Equalise,
    Gamma,
    GaussianNoise,
    Posterise,
    RandAugment,
    RandomErasing,
    Rotation,
    Sharpness,
)
from patchmill.loaders.pipelines.extra import Extra
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Blur, Colour, Crop, Recipe, Views

COUNT, SAMPLES = 2, 8
RENDERED = "rendering"
BILINEAR = v2.InterpolationMode.BILINEAR


def on_bytes(function: Callable[..., Tensor], *arguments: Any) -> Callable[[Tensor], Tensor]:
    """A torchvision function on 8-bit copies of float views."""
    return lambda view: function((view * 255).byte(), *arguments).float() / 255


# Name, operation and torchvision's function for one view.
CONTENDERS: list[tuple[str, Operation, Callable[[Tensor], Tensor]]] = [
    ("RandomErasing, const", RandomErasing(1.0), v2.RandomErasing(1.0)),
    (
        "RandomErasing, pixel",
        RandomErasing(1.0, mode="pixel"),
        v2.RandomErasing(1.0, value="random"),
    ),
    ("Rotation", Rotation(1.0), lambda view: tv.rotate(view, 20.0, BILINEAR, fill=[0.5, 0.5, 0.5])),
    ("GaussianNoise", GaussianNoise(1.0), tv.gaussian_noise),
    ("Posterise", Posterise(1.0), on_bytes(tv.posterize, 4)),
    ("Sharpness", Sharpness(1.0), partial(tv.adjust_sharpness, sharpness_factor=1.5)),
    ("Gamma", Gamma(1.0), partial(tv.adjust_gamma, gamma=1.3)),
    ("AutoContrast", AutoContrast(1.0), tv.autocontrast),
    ("Equalise", Equalise(1.0), on_bytes(tv.equalize)),
    ("RandAugment", RandAugment(), on_bytes(v2.RandAugment())),
]


def main(argv: Sequence[str] | None = None) -> None:
    settings = _parser().parse_args(argv)
    report.check_writable(settings.json, settings.picture)
    if settings.size < 16 or settings.rounds < 1:
        raise MillError("--size must be at least 16, and --rounds at least 1")
    torch.set_num_threads(1)
    if settings.picture:
        _picture(settings.picture)
        return
    rows = measure(settings.size, settings.rounds)
    table = report.new_table("operation", "ms/view", "uint8", "torchvision")
    for row in rows:
        figures = (row["ms_per_view"], row.get("uint8_ms"), row.get("torchvision_ms"))
        table.add_row(row["name"], *("" if f is None else f"{f:.2f}" for f in figures))
    Console(highlight=False).print(table)
    if settings.json:
        report.write_json(settings.json, {"size": settings.size, "rows": rows})


def measure(size: int, rounds: int) -> list[dict[str, Any]]:
    """One row for the renderer and one per operation."""
    float_views = torch.rand(COUNT * SAMPLES, 3, size, size)
    turns: dict[str, Callable[[], float]] = {RENDERED: _rendering(size)}
    for name, operation, theirs in CONTENDERS:
        for dtype in (torch.float32, torch.uint8):
            turns[f"{name} {dtype}"] = _ours(operation, size, dtype)
        turns[f"{name} torchvision"] = partial(_each, theirs, float_views)
    for turn in turns.values():
        turn()  # compiles and imports
    seconds = timing.interleave(turns, rounds)
    per_view = {
        name: round(1000 * timing.summary(values).median / (COUNT * SAMPLES), 4)
        for name, values in seconds.items()
    }
    return [
        {"name": RENDERED, "ms_per_view": per_view[RENDERED]},
        *(
            {
                "name": name,
                "ms_per_view": per_view[f"{name} {torch.float32}"],
                "uint8_ms": per_view[f"{name} {torch.uint8}"],
                "torchvision_ms": per_view[f"{name} torchvision"],
            }
            for name, _, _ in CONTENDERS
        ),
    ]


def _ours(operation: Operation, size: int, dtype: torch.dtype) -> Callable[[], float]:
    recipe = Recipe((Views("view", COUNT, size, extra=(operation,)),))
    extra = Extra(recipe, 0, dtype, torch.device("cpu"))
    noise = 255 * torch.rand(SAMPLES, COUNT, 3, size, size)
    views = {"view": noise.to(dtype) if dtype == torch.uint8 else noise / 255}
    ids = np.arange(SAMPLES)

    def turn() -> float:
        began = time.thread_time()
        for part in extra.parts(SAMPLES):
            extra.apply(views, 0, ids, part)
        return time.thread_time() - began

    return turn


def _each(function: Callable[[Tensor], Tensor], views: Tensor) -> float:
    began = time.thread_time()
    for view in views:
        function(view)
    return time.thread_time() - began


def _rendering(size: int) -> Callable[[], float]:
    colour, blur = Colour(0.4, 0.4, 0.2, 0.1), Blur(0.5)
    recipe = Recipe((Views("view", COUNT, size, Crop((0.32, 1.0)), colour=colour, blur=blur),))
    image = np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)
    images = [image] * SAMPLES
    plan = draw.draw(recipe, 0, 0, range(SAMPLES), [image.shape[:2]] * SAMPLES)

    def turn() -> float:
        began = time.thread_time()
        render.render(images, plan.rows, draw.targets(recipe))
        return time.thread_time() - began

    return turn


def _picture(path: str) -> None:
    """Draw every operation on one view of a scene."""
    from PIL import Image, ImageDraw

    from patchmill.loaders.decode.decoder import decode
    from patchmill.loaders.preview.text import MUTED, font
    from patchmill.loaders.sources import open_source

    side, columns, gap, caption = 112, 5, 10, 20
    source = open_source("scenes:64")
    image = decode(source.read(7))
    shown = [("as rendered", None), *((name, made) for name, made, _ in CONTENDERS)]
    lines = -(-len(shown) // columns)
    sheet = Image.new(
        "RGB", (columns * (side + gap) + gap, lines * (side + caption + gap) + gap), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for number, (name, made) in enumerate(shown):
        views = Views("view", 1, side, Crop((0.9, 0.9), (1, 1)), flip=0.0)
        recipe = Recipe((views,))
        plan = draw.draw(recipe, 1, 0, [7], [image.shape[:2]])
        rendered = render.render([image], plan.rows, draw.targets(recipe), dtype=torch.uint8)
        if made is not None:
            own = Recipe((Views("view", 1, side, extra=(made,)),))
            Extra(own, 5, torch.uint8, torch.device("cpu")).apply(rendered, 0, np.array([7]))
        x, y = (
            gap + number % columns * (side + gap),
            gap + number // columns * (side + caption + gap),
        )
        pixels = rendered["view"][0, 0].permute(1, 2, 0).numpy()
        sheet.paste(Image.fromarray(pixels), (x, y))
        pen.text((x, y + side + 4), name, MUTED, font(10))
    sheet.quantize(128, dither=Image.Dither.NONE).save(Path(path), optimize=True)


def _parser() -> report.Parser:
    parser = report.Parser("extra", __doc__)
    parser.add_argument("--size", type=int, default=224, help="of the views (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--picture", metavar="FILE", help="draw the operations as a PNG instead")
    return parser


if __name__ == "__main__":
    run_command(main)
