"""Measure the cost of copy-paste in the renderer: views without it, and on each background kind.

    python benchmarks/copypaste.py [--data DIR] [--paste 0.3] [--device cpu|cuda] [--count 64]
        [--dtype float32] [--rounds 15] [--json FILE]

Compares the views of `moco_v2` with those of `dilo` on grey, on a texture and on another image. All
are rendered in turns from the same decoded images with the same decision rows, to which copy-paste
only adds fields; the first round is a warm-up. The CPU renderer runs in one thread and is measured
in CPU time; on a GPU the kernels are timed by CUDA events. Masks have at most 256 pixels a side:
the data's own, or RBD's.

Additional rows time the rest of a loader worker's work: decoding all images, the masks of pasted
ones and, where backgrounds are images, the backgrounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console

from patchmill.benchmarks.lib import machine, report, timing
from patchmill.benchmarks.lib.paste_inputs import (
    PasteImages,
    RenderCase,
    load_images,
    make_case,
)
from patchmill.benchmarks.lib.sample import describe
from patchmill.kernels.views import layout
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import PASTE_NEVER
from patchmill.loaders import presets
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.copypaste.mask_png import decode_mask
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.recipe import BACKGROUNDS
from patchmill.loaders.sources import open_source

PLAIN = "moco_v2"
DECODE_IMAGES, DECODE_MASKS = "decode the images", "decode the masks"
DECODE_BACKGROUNDS = "decode the images behind"  # as committed results name it
DTYPES = ("float32", "float16", "bfloat16", "uint8")

Turn = Callable[[], float]  # returns its seconds


@dataclass(frozen=True)
class RenderRow:
    name: str
    seconds: timing.Summary  # of a turn
    ratio: timing.Summary  # to the views without copy-paste, per round

    def as_json(self, count: int) -> dict[str, Any]:
        return {
            "name": self.name,
            "us_per_image": round(1e6 * self.seconds.median / count, 1),
            "spread": round(self.seconds.spread, 3),
            "ratio": round(self.ratio.median, 4),
            "ratio_low": round(self.ratio.low, 4),
            "ratio_high": round(self.ratio.high, 4),
        }


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    report.check_writable(arguments.json)
    torch.set_num_threads(1)
    device, dtype = _device(arguments.device), getattr(torch, arguments.dtype)
    source = open_source(arguments.data or f"scenes:{arguments.count}")
    images = load_images(source, arguments.count)
    recipes = {PLAIN: presets.moco_v2()} | {
        kind: presets.dilo(paste=arguments.paste, background=kind) for kind in BACKGROUNDS
    }
    cases = {name: make_case(recipe, images) for name, recipe in recipes.items()}
    on_cuda = device.type == "cuda"
    turns = (on_gpu if on_cuda else on_cpu)(images, cases, device, dtype)
    rows = measure(turns, arguments.rounds)
    pasted = cases[BACKGROUNDS[0]].rows["paste"] != PASTE_NEVER
    about = {
        "source": source.name,
        **describe(images.encoded),
        "masked": sum(plane is not None for plane in images.planes),
        "pasted_views": round(float(pasted.mean()), 3),
        "pasted_images": round(float(pasted.any(1).mean()), 3),
    }
    _show(rows, about, machine.gpu(arguments.device) if on_cuda else machine.cpu())
    if arguments.json:
        settings = {name: value for name, value in vars(arguments).items() if name != "json"}
        json_rows = [row.as_json(len(images)) for row in rows]
        report.write_json(arguments.json, {**settings, "images": about, "rows": json_rows})


def measure(turns: dict[str, Turn], rounds: int) -> list[RenderRow]:
    timing.interleave(turns, 1)  # warm-up: compiles and touches memory
    seconds = timing.interleave(turns, rounds)
    return [
        RenderRow(name, timing.summary(values), timing.ratio(values, seconds[PLAIN]))
        for name, values in seconds.items()
    ]


# --------------------------------------------------------------------------------------- on a CPU


def on_cpu(
    images: PasteImages, cases: dict[str, RenderCase], device: torch.device, dtype: torch.dtype
) -> dict[str, Turn]:
    """Turns of the CPU renderer, which share the memory of one batch, and of decoding."""
    elements = layout.elements(cases[PLAIN].targets, len(images))
    out, scratch = torch.zeros(elements, dtype=dtype, device=device), render.Scratch()
    turns: dict[str, Turn] = {
        name: partial(_render, images.images, case, out, scratch) for name, case in cases.items()
    }
    on_images = cases["images"]
    return turns | {
        DECODE_IMAGES: partial(_decode, images.encoded),
        DECODE_MASKS: partial(_decode_masks, images, on_images),
        DECODE_BACKGROUNDS: partial(_decode, _encoded_backgrounds(images, on_images)),
    }


def _render(
    images: list[np.ndarray], case: RenderCase, out: torch.Tensor, scratch: render.Scratch
) -> float:
    flat, half = render.flat_numpy(out)
    slots = render.slots(case.targets, len(images), out.dtype == torch.uint8)
    largest = max(target.size for target in case.targets)
    start = time.thread_time()
    inputs = zip(images, case.planes, case.backgrounds, strict=True)
    for i, (image, plane, background_image) in enumerate(inputs):
        mask = render.NO_MASK if plane is None else plane
        background = render.NO_IMAGE if background_image is None else background_image
        height, width, _ = image.shape
        pool = scratch.reserve(height, width, largest, mask.shape, background.shape)
        common = (case.rows[i], slots, i, half, False, flat, pool)
        if plane is None:
            render.render_image(image, *common)
        else:
            render.render_pasted(image, mask, background, *common)
    return time.thread_time() - start


def _decode_masks(images: PasteImages, case: RenderCase) -> float:
    pairs = zip(images.mask_pngs, case.planes, strict=True)
    pngs = [png for png, plane in pairs if plane is not None and png]
    start = time.thread_time()
    for png in pngs:
        decode_mask(png, str)
    return time.thread_time() - start


def _encoded_backgrounds(images: PasteImages, case: RenderCase) -> list[bytes]:
    pairs = zip(images.background_indices, case.backgrounds, strict=True)
    return [images.encoded[index] for index, background in pairs if background is not None]


def _decode(encoded: Sequence[bytes]) -> float:
    start = time.thread_time()
    for data in encoded:
        decode(data)
    return time.thread_time() - start


# --------------------------------------------------------------------------------------- on a GPU


def on_gpu(
    images: PasteImages, cases: dict[str, RenderCase], device: torch.device, dtype: torch.dtype
) -> dict[str, Turn]:
    """Turns of the GPU renderer; uploads and tables are made before the clock starts."""
    from patchmill.kernels.views.gpu import launch as gpu_launch
    from patchmill.kernels.views.gpu.tables import Images, OptionalTensors

    def upload(arrays: Sequence[np.ndarray | None]) -> list[torch.Tensor | None]:
        return [None if array is None else torch.from_numpy(array).to(device) for array in arrays]

    def turn(name: str) -> float:
        inputs = Images.of(uploaded, *paste_inputs[name])
        launches = gpu_launch.launches(out, inputs, cases[name].rows, targets, False)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda._sleep(2_000_000)  # the launches are queued before the first begins
        begin.record()
        for launch in launches:
            launch()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3

    torch.cuda.set_device(device.index or 0)
    targets = cases[PLAIN].targets
    out = torch.empty(layout.elements(targets, len(images)), dtype=dtype, device=device)
    uploaded = [torch.from_numpy(image).to(device) for image in images.images]
    paste_inputs: dict[str, tuple[OptionalTensors, ...]] = {PLAIN: ()} | {
        kind: (upload(cases[kind].planes), upload(cases[kind].backgrounds)) for kind in BACKGROUNDS
    }
    return {name: partial(turn, name) for name in cases}


# --------------------------------------------------------------------------------------- the report


def _show(rows: list[RenderRow], about: dict[str, Any], device: str) -> None:
    count = about["count"]
    print(
        f"{device}: {count} images of {about['source']}, {about['masked']} with masks; "
        f"{about['pasted_views']:.0%} of the views are pasted, of {about['pasted_images']:.0%} of "
        "the images"
    )
    table = report.new_table("", "µs an image", "spread", "to moco_v2", "low to high")
    for row in rows:
        entries = row.as_json(count)
        low_to_high = f"{row.ratio.low:.3f} to {row.ratio.high:.3f}"
        table.add_row(
            row.name,
            f"{entries['us_per_image']:,.0f}",
            f"{entries['spread']:.1%}",
            f"[bold]{row.ratio.median:.3f}[/]",
            low_to_high,
        )
    Console(highlight=False).print(table)


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MillError(
            "there is no CUDA device here: use --device cpu to measure the CPU renderer instead"
        )
    return device


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = report.Parser("copypaste", __doc__)
    parser.add_argument("--data", help="a folder of images, or scenes (the default)")
    parser.add_argument("--paste", type=float, default=0.3, help="chance per view (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--count", type=int, default=64, help="images at most (%(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    arguments = parser.parse_args(argv)
    if not arguments.rounds > 0 or not arguments.count > 1:
        raise MillError("--rounds must be above 0, and --count above 1")
    return arguments


if __name__ == "__main__":
    run_command(main)
