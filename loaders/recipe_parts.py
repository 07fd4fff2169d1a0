"""Settings of a recipe: crop laws, colour, blur, copy-paste, and the view group that holds them.

Every view is *a window of a virtual resize of a box*: a crop law picks the box in source pixels,
the size that box is resized to, and the window of the result that is the view. Random resized
crops, evaluation crops, padded shifts, fixed-scale windows and grid cells all have that form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Range = tuple[float, float]
Chance = float | tuple[float, ...]  # one probability, or one for each view of the group

BACKGROUNDS = ("grey", "texture", "images")  # of a copy-paste


@dataclass(frozen=True)
class Crop:
    """Torchvision's random resized crop: area and aspect ratio drawn, ten tries, then centred."""

    kind: ClassVar[str] = "crop"
    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    # Share of the image's area that the crop must have in common with every view of the recipe's
    # first group drawn before it (GTSA); rejected crops are drawn again, at most 50 times.
    min_overlap: float = 0.0


@dataclass(frozen=True)
class Window:
    """A view-sized window, uniformly placed, of the image resized to `short_side`: fixed scale."""

    kind: ClassVar[str] = "window"
    short_side: int = 256


@dataclass(frozen=True)
class Shift:
    """The image resized to the view's size, padded with `pad` black pixels, randomly shifted."""

    kind: ClassVar[str] = "shift"
    pad: int = 4


@dataclass(frozen=True)
class Centre:
    """The evaluation crop: short side resized to `short_side`, then the central window."""

    kind: ClassVar[str] = "centre"
    short_side: int = 256


Law = Crop | Window | Shift | Centre


@dataclass(frozen=True)
class Grid:
    """The view drawn by `of`, cut into rows x columns cells; each cell is one view, row by row."""

    kind: ClassVar[str] = "grid"
    rows: int = 7
    columns: int = 7
    of: Law = Crop()


@dataclass(frozen=True)
class Spread:
    """Rows x columns windows of one scale, at even steps from edge to edge of the whole image.

    Nothing is drawn: the windows to evaluate what was trained on `Window` or on square `Crop`s of
    one scale. One row or column alone is in the middle.
    """

    kind: ClassVar[str] = "spread"
    rows: int = 4
    columns: int = 4
    area: float = 0.2  # of a window, as a share of the image's
    short_side: int | None = None  # or: windows of the view's size, of the image resized to this


@dataclass(frozen=True)
class Colour:
    """Colour jitter (applied whole with chance `p`, its four operations in random order) and grey.

    Factors are uniform in [max(0, 1-x), 1+x], the hue shift in [-hue, hue] turns.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    p: Chance = 0.8
    grey: Chance = 0.2
    grey_first: bool = False  # MoCo v1 turns grey before it jitters


@dataclass(frozen=True)
class Blur:
    """Gaussian blur, reflecting at the border; `kernel` None means all taps within 3 sigma."""

    p: Chance = 0.5
    sigma: Range = (0.1, 2.0)
    kernel: int | None = None


@dataclass(frozen=True)
class CopyPaste:
    """The image's salient part on another background (DiLo), by a mask that comes with the image.

    As if the whole image had been pasted before it is cropped; padding stays black. Each view
    decides for itself, the cells of a grid together. Images without a usable mask stay as they are.
    """

    FORMER_NAMES: ClassVar[dict[str, str]] = {"blur_radius": "blur_sigma"}
    p: Chance = 0.3
    # grey: one level, uniform over 0 to 254; texture: made from a seed; images: another sample of
    # the data, that of 8 with least foreground, or an image of the loader's `backgrounds`; enlarged
    # until it covers the image, of which a part is seen.
    background: str = "grey"
    blur_p: float = 0.5  # of softening the mask first, where there is a paste
    blur_sigma: float = 5.0  # of that blur, in pixels of the stored image


@dataclass(frozen=True)
class Views:
    """One group of views: `count` tensors of one `size` made by the same laws.

    A grid's `size` is that of one cell, and its `count` the number of grids; so of a spread.
    """

    name: str
    count: int
    size: int
    crop: Crop | Window | Shift | Centre | Grid | Spread = Crop()
    flip: Chance = 0.5
    turns: bool = False  # a random number of counter-clockwise quarter turns
    colour: Colour | None = None
    blur: Blur | None = None
    solarise: Chance = 0.0  # inverts values >= 128/255
    interpolation: str = "bilinear"  # or "bicubic"; both antialiased
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    paste: CopyPaste | None = None

    @property
    def total(self) -> int:
        """How many views the group holds: cells are views."""
        grid = self.crop
        return self.count * (grid.rows * grid.columns if isinstance(grid, Grid | Spread) else 1)


def chance_of(chance: Chance, view: int) -> float:
    """The probability for one view of a group."""
    return chance[view] if isinstance(chance, tuple) else chance
