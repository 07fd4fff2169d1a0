"""What copy-paste costs the renderer: the same views without it, and on each kind of background.

    python benchmarks/copypaste.py [--data DIR] [--paste 0.3] [--device cpu|cuda] [--count 64]
        [--dtype float32] [--rounds 15] [--json FILE]

The views are those of `moco_v2`, and of `dilo` on a level of grey, a texture or another image. All
are made of the same decoded images by the same rows, to which copy-paste adds and in which it
changes nothing, and take turns; the first round is not counted. On a CPU that is one thread, by the
time that it had a core, on a GPU the launches, by the GPU's clock. Masks have 256 pixels at most:
the data's own, or RBD's.

What the workers of a loader do besides stands below, compared with the views as well: they decode
all images, the masks of those that are pasted and, where other images are the backgrounds, those.
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
from patchmill.benchmarks.lib.paste_cases import Case, Pictures, case, gathered
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
IMAGES, MASKS, BEHIND = (f"decode the {what}" for what in ("images", "masks", "images behind"))
DTYPES = ("float32", "float16", "bfloat16", "uint8")

Turn = Callable[[], float]  # seconds that one round took


@dataclass(frozen=True)
class Row:
    name: str
    seconds: timing.Summary  # of a round
    ratio: timing.Summary  # to the views without copy-paste, round by round

    def as_json(self, count: int) -> dict[str, Any]:
        return {
            "name": self.name,
            "us_per_image": round(1e6 * self.seconds.median / count, 1),
            "spread": round(self.seconds.spread, 3),
            "ratio": round(self.ratio.median, 4),
            "ratio_low": round(self.ratio.low, 4),
            "ratio_high": round(self.ratio.high, 4),
        }


def main() -> None:
    asked = _settings()
    report.check_writable(asked.json)
    torch.set_num_threads(1)
    device, dtype = _device(asked.device), getattr(torch, asked.dtype)
    source = open_source(asked.data or f"scenes:{asked.count}")
    pictures = gathered(source, asked.count)
    recipes = {PLAIN: presets.moco_v2()} | {
        kind: presets.dilo(paste=asked.paste, background=kind) for kind in BACKGROUNDS
    }
    cases = {name: case(views, pictures) for name, views in recipes.items()}
    on_cuda = device.type == "cuda"
    turns = (on_gpu if on_cuda else on_cpu)(pictures, cases, device, dtype)
    rows = measure(turns, asked.rounds)
    pasted = cases[BACKGROUNDS[0]].rows["paste"] != PASTE_NEVER
    about = {
        "source": source.name,
        **describe(pictures.encoded),
        "masked": sum(plane is not None for plane in pictures.planes),
        "pasted_views": round(float(pasted.mean()), 3),
        "pasted_images": round(float(pasted.any(1).mean()), 3),
    }
    _show(rows, about, machine.gpu(asked.device) if on_cuda else machine.cpu())
    if asked.json:
        settings = {name: value for name, value in vars(asked).items() if name != "json"}
        found = [row.as_json(len(pictures)) for row in rows]
        report.write_json(asked.json, {**settings, "images": about, "rows": found})


def measure(turns: dict[str, Turn], rounds: int) -> list[Row]:
    timing.interleave(turns, 1)  # what is compiled, and memory touched
    seconds = timing.interleave(turns, rounds)
    return [
        Row(name, timing.summary(taken), timing.ratio(taken, seconds[PLAIN]))
        for name, taken in seconds.items()
    ]


# --------------------------------------------------------------------------------------- on a CPU


def on_cpu(
    pictures: Pictures, cases: dict[str, Case], device: torch.device, dtype: torch.dtype
) -> dict[str, Turn]:
    """Views go into the memory of a whole batch, as in a loader, which all share."""
    numbers = layout.elements(cases[PLAIN].targets, len(pictures))
    memory, scratch = torch.zeros(numbers, dtype=dtype, device=device), render.Scratch()
    turns: dict[str, Turn] = {
        name: partial(_render, pictures.images, case, memory, scratch)
        for name, case in cases.items()
    }
    return turns | {
        IMAGES: partial(_decode, pictures.encoded),
        MASKS: partial(_decode_masks, pictures, cases["images"]),
        BEHIND: partial(_decode, _behind(pictures, cases["images"])),
    }


def _render(
    images: list[np.ndarray], case: Case, flat: torch.Tensor, scratch: render.Scratch
) -> float:
    memory, half = render.flat_numpy(flat)
    slots = render.slots(case.targets, len(images), flat.dtype == torch.uint8)
    largest = max(target.size for target in case.targets)
    began = time.thread_time()
    for i, (image, plane, ground) in enumerate(zip(images, case.planes, case.grounds, strict=True)):
        mask = render.NO_MASK if plane is None else plane
        behind = render.NO_IMAGE if ground is None else ground
        height, width, _ = image.shape
        pool = scratch.reserve(height, width, largest, mask.shape, behind.shape)
        ending = (case.rows[i], slots, i, half, False, memory, pool)
        if plane is None:
            render.render_image(image, *ending)
        else:
            render.render_pasted(image, mask, behind, *ending)
    return time.thread_time() - began


def _decode_masks(pictures: Pictures, case: Case) -> float:
    pngs = [png for png, p in zip(pictures.pngs, case.planes, strict=True) if p is not None and png]
    began = time.thread_time()
    for png in pngs:
        decode_mask(png, str)
    return time.thread_time() - began


def _behind(pictures: Pictures, case: Case) -> list[bytes]:
    behind = [pictures.behind[i] for i, ground in enumerate(case.grounds) if ground is not None]
    return [pictures.encoded[other] for other in behind]


def _decode(encoded: Sequence[bytes]) -> float:
    began = time.thread_time()
    for data in encoded:
        decode(data)
    return time.thread_time() - began


# --------------------------------------------------------------------------------------- on a GPU


def on_gpu(
    pictures: Pictures, cases: dict[str, Case], device: torch.device, dtype: torch.dtype
) -> dict[str, Turn]:
    """Everything is uploaded, and the tables are made, before the clock starts."""
    from patchmill.kernels.views.gpu import launch as gpu_launch
    from patchmill.kernels.views.gpu.tables import Images, OptionalTensors

    def there(pictures: Sequence[np.ndarray | None]) -> list[torch.Tensor | None]:
        return [None if it is None else torch.from_numpy(it).to(device) for it in pictures]

    def turn(name: str) -> float:
        given = Images.of(images, *beside[name])
        launches = gpu_launch.launches(out, given, cases[name].rows, targets, False)
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
    out = torch.empty(layout.elements(targets, len(pictures)), dtype=dtype, device=device)
    images = [torch.from_numpy(image).to(device) for image in pictures.images]
    beside: dict[str, tuple[OptionalTensors, ...]] = {PLAIN: ()} | {
        kind: (there(cases[kind].planes), there(cases[kind].grounds)) for kind in BACKGROUNDS
    }
    return {name: partial(turn, name) for name in cases}


# --------------------------------------------------------------------------------------- the report


def _show(rows: list[Row], about: dict[str, Any], device: str) -> None:
    count = about["count"]
    print(
        f"{device}: {count} images of {about['source']}, {about['masked']} with masks; pasted are "
        f"{about['pasted_views']:.0%} of the views, of {about['pasted_images']:.0%} of the images"
    )
    table = report.new_table("", "µs an image", "spread", "to moco_v2", "low to high")
    for row in rows:
        found = row.as_json(count)
        low_to_high = f"{row.ratio.low:.3f} to {row.ratio.high:.3f}"
        table.add_row(
            row.name,
            f"{found['us_per_image']:,.0f}",
            f"{found['spread']:.1%}",
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


def _settings() -> argparse.Namespace:
    parser = report.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder of images, or scenes (the default)")
    parser.add_argument("--paste", type=float, default=0.3, help="chance of a view (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--count", type=int, default=64, help="images at most (%(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    settings = parser.parse_args()
    if not settings.rounds > 0 or not settings.count > 1:
        raise MillError("--rounds must be above 0, and --count above 1")
    return settings


if __name__ == "__main__":
    run_command(main)
