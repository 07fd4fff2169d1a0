"""Images and rows for renderer tests: hand-made and drawn by hypothesis."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from helpers_pictures import KINDS, make_image, make_mask
from hypothesis import strategies as st

from patchmill.kernels.views.decisions import (
    GREY_FIRST,
    GREY_LAST,
    GREY_NEVER,
    NO_JITTER,
    ON_GREY,
    ON_IMAGE,
    ON_TEXTURE,
    ROW,
    Target,
)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MASKS = ("disc", "noise", "checks")


class Case(NamedTuple):
    image: np.ndarray
    row: np.void
    target: Target


class PasteCase(NamedTuple):
    image: np.ndarray
    mask: np.ndarray
    background: np.ndarray
    row: np.void
    target: Target


def target(size: int, bicubic: bool = False, count: int = 1, name: str = "view") -> Target:
    return Target(name, count, size, bicubic, *IMAGENET)


def make_row(image: np.ndarray, size: int, **fields: Any) -> np.void:
    """A row that resizes the whole image to one view; `fields` override."""
    height, width = image.shape[:2]
    row = np.zeros((), ROW)
    defaults = {"box_h": height, "box_w": width, "full_h": size, "full_w": size}
    neutral = {"order": NO_JITTER, "brightness": 1, "contrast": 1, "saturation": 1}
    for name, value in (defaults | neutral | fields).items():
        row[name] = value
    return row[()]


def order_of(*operations: int) -> int:
    """The `order` field that applies the operations in this order."""
    return sum(operation << 2 * place for place, operation in enumerate(operations))


# ---------------------------------------------------------------------------------- hypothesis

small = st.one_of(st.integers(1, 4), st.integers(1, 40))
seeds = st.integers(0, 2**16)


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    """From a single pixel and 1 x 20 strips to a few hundred pixels per side."""
    height, width = draw(
        st.one_of(
            st.tuples(small, small),
            st.tuples(st.integers(1, 200), st.integers(1, 200)),
            st.integers(1, 12).map(lambda n: (n, 20 * n)),
            st.integers(1, 12).map(lambda n: (20 * n, n)),
        )
    )
    return make_image(draw(st.sampled_from(KINDS)), height, width, draw(seeds))


@st.composite
def boxes(draw: st.DrawFn, image: np.ndarray) -> dict[str, int]:
    """Any box inside the image, up to the whole image."""
    sides = {}
    for axis, length in (("y", image.shape[0]), ("x", image.shape[1])):
        side = draw(st.one_of(st.just(length), st.integers(1, length)))
        sides |= {
            f"box_{axis}": draw(st.integers(0, length - side)),
            f"box_{'h' if axis == 'y' else 'w'}": side,
        }
    return sides


@st.composite
def windows(draw: st.DrawFn, size: int) -> dict[str, int]:
    """Mostly the plain crop; else a window inside, across or wholly outside another resize."""
    if draw(st.booleans()):
        return {"full_h": size, "full_w": size}
    full_h, full_w = draw(st.integers(1, 4 * size)), draw(st.integers(1, 4 * size))
    return {
        "full_h": full_h,
        "full_w": full_w,
        "win_y": draw(st.integers(-size - 1, full_h + 1)),
        "win_x": draw(st.integers(-size - 1, full_w + 1)),
    }


factors = st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(0, 2, width=32))
hues = st.one_of(st.sampled_from([-0.5, 0.0, 0.5]), st.floats(-0.5, 0.5, width=32))
orders = st.permutations(range(4)).map(lambda operations: order_of(*operations))


@st.composite
def colours(draw: st.DrawFn) -> dict[str, float]:
    return {
        "order": draw(st.one_of(st.just(NO_JITTER), orders)),
        "brightness": draw(factors),
        "contrast": draw(factors),
        "saturation": draw(factors),
        "hue": draw(hues),
        "grey": draw(st.sampled_from([GREY_NEVER, GREY_LAST, GREY_FIRST])),
    }


@st.composite
def blurs(draw: st.DrawFn) -> dict[str, float]:
    """No blur, or a blur whose taps may reach far beyond the view."""
    if draw(st.booleans()):
        return {"sigma": 0.0, "radius": 0}
    return {"sigma": draw(st.floats(0.125, 10, width=32)), "radius": draw(st.integers(1, 30))}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """An image, a row with any fields for one of its views, and the view's target."""
    image = draw(images())
    size = draw(st.one_of(st.integers(1, 5), st.integers(1, 64)))
    row = make_row(
        image,
        size,
        **draw(boxes(image)),
        **draw(windows(size)),
        **draw(colours()),
        **draw(blurs()),
        flip=draw(st.integers(0, 1)),
        turns=draw(st.integers(0, 3)),
        solarise=draw(st.integers(0, 1)),
    )
    return Case(image, row, target(size, draw(st.booleans())))


@st.composite
def pastes(draw: st.DrawFn) -> dict[str, float]:
    """Background fields of a row; the mask's blur may be as wide as recipes allow."""
    kind = draw(st.sampled_from([ON_GREY, ON_TEXTURE, ON_IMAGE]))
    share = st.floats(0, 0.5, width=32)
    return {
        "paste": kind,
        "background": draw(st.integers(0, 254 if kind == ON_GREY else 2**31 - 1)),
        "mask_sigma": draw(st.sampled_from([0.0, 5.0]) | st.floats(0.125, 50, width=32)),
        "background_y": draw(share),
        "background_x": draw(share),
    }


@st.composite
def paste_cases(draw: st.DrawFn, largest: int = 64) -> PasteCase:
    """A view pasted on another background, in any pose, box and window, without colour."""
    image, background = draw(images()), draw(images())
    sides = st.one_of(small, st.integers(1, 300))
    mask = make_mask(draw(st.sampled_from(MASKS)), draw(sides), draw(sides), draw(seeds))
    size = draw(st.one_of(st.integers(1, 5), st.integers(1, largest)))
    window = draw(windows(size))
    for full in ("full_h", "full_w"):
        window[full] = max(window[full], size)
    row = make_row(
        image,
        size,
        **draw(boxes(image)),
        **window,
        **draw(pastes()),
        flip=draw(st.integers(0, 1)),
        turns=draw(st.integers(0, 3)),
    )
    return PasteCase(image, mask, background, row, target(size, draw(st.booleans())))
