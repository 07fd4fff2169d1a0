"""Render with every buffer placed against a protected page; run as a program by a test.

    python tests/kernels/views/helpers_guarded_views.py any|shrunk COUNT

Reading or writing beyond the end of the image, the scratch memory or the batch causes a
segmentation fault here, after the case has been printed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers_guarded import Guarded
from helpers_views import KINDS, MASKS, make_image, make_mask, make_row, order_of, target

from patchmill.kernels.views.cpu import render

SIZES = (1, 2, 5, 7, 8, 16, 31, 32, 33, 64, 96, 98, 225)
FORMATS = ((np.float32, False), (np.uint16, False), (np.uint16, True), (np.uint8, False))
SIDES = ((1, 1), (1, 20), (20, 1), (3, 700), (700, 3), (21, 22), (64, 64), (333, 500), (900, 40))


def main(rows: str, count: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(count):
        render_one(rng, shrunk=rows == "shrunk")


def render_one(rng: np.random.Generator, shrunk: bool) -> None:
    height, width = SIDES[rng.integers(len(SIDES))]
    picture = make_image(KINDS[rng.integers(len(KINDS))], height, width)
    size, bicubic = SIZES[rng.integers(len(SIZES))], bool(rng.integers(2))
    kind, half = FORMATS[rng.integers(len(FORMATS))]
    channels_last, at_end = bool(rng.integers(2)), bool(rng.integers(2))
    row = any_row(rng, picture, size)
    if shrunk:
        row["full_h"] = row["full_w"] = 1
    print(
        picture.shape, size, bicubic, np.dtype(kind), half, channels_last, at_end, row, flush=True
    )

    image = frozen(picture, at_end)
    views = target(size, bicubic)
    batch = Guarded(render.elements([views], 1) * np.dtype(kind).itemsize, at_end)
    scratch = Guarded(render.scratch_bytes(height, width, size), at_end)
    table = render.slots([views], 1, kind is np.uint8)
    pixels, out = image.bytes.reshape(picture.shape), batch.bytes.view(kind)
    rows = np.array([row])
    if shrunk or rng.integers(2):
        render.render_image(pixels, rows, table, 0, half, channels_last, out, scratch.bytes)
        return

    rows["paste"], rows["background"] = rng.integers(1, 4), rng.integers(255)
    rows["mask_sigma"] = rng.uniform(0.1, 50) * rng.integers(2)
    rows["background_y"], rows["background_x"] = rng.uniform(0, 0.5, 2)
    (mask_h, mask_w), (back_h, back_w) = (SIDES[i] for i in rng.integers(len(SIDES), size=2))
    plane = make_mask(MASKS[rng.integers(len(MASKS))], mask_h, mask_w)
    other = make_image(KINDS[rng.integers(len(KINDS))], back_h, back_w)
    print("pasted", plane.shape, other.shape, rows, flush=True)
    mask, background = frozen(plane, at_end), frozen(other, at_end)
    need = render.pasted_scratch_bytes(height, width, mask_h, mask_w, back_h, back_w, size)
    scratch = Guarded(need, at_end)
    render.render_pasted(
        pixels, mask.bytes.reshape(plane.shape), background.bytes.reshape(other.shape), rows, table,
        0, half, channels_last, out, scratch.bytes,
    )  # fmt: skip


def frozen(array: np.ndarray, at_end: bool) -> Guarded:
    memory = Guarded(array.size, at_end)
    memory.bytes[:] = array.ravel()
    memory.freeze()
    return memory


def any_row(rng: np.random.Generator, image: np.ndarray, size: int) -> np.void:
    """Any box; the plain crop, or a window placed as in recipes, with all operations on."""
    fields: dict[str, float] = {}
    for axis, side, length in (("y", "h", image.shape[0]), ("x", "w", image.shape[1])):
        box = int(rng.integers(1, length + 1)) if rng.integers(2) else length
        full = size * int(rng.integers(1, 4)) + int(rng.integers(0, 9)) * int(rng.integers(2))
        start = int(rng.integers(-size, full + 1))
        corner = int(rng.integers(0, length - box + 1))
        fields |= {f"box_{side}": box, f"box_{axis}": corner}
        fields |= {f"full_{side}": full, f"win_{axis}": start}
    if rng.integers(2):
        fields |= {"full_h": size, "full_w": size, "win_y": 0, "win_x": 0}
    sigma = float(rng.uniform(0.1, 10)) * int(rng.integers(2))
    jitter = {"order": order_of(*rng.permutation(4)), "hue": rng.uniform(-0.5, 0.5)}
    jitter |= {name: rng.uniform(0, 3.9) for name in ("brightness", "contrast", "saturation")}
    return make_row(
        image,
        size,
        **fields,
        **jitter,
        grey=int(rng.integers(3)),
        sigma=sigma,
        radius=int(rng.integers(1, 31)) * (sigma > 0),
        flip=int(rng.integers(2)),
        turns=int(rng.integers(4)),
        solarise=int(rng.integers(2)),
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
