"""Settings of a recipe: crop laws, colour, blur, copy-paste, and the view group that holds them.

Every view is *a window of a virtual resize of a box*: a crop law picks the box in source pixels,
the size that box is resized to, and the window of the result that becomes the view. Random resized
crops, evaluation crops, padded shifts, fixed-scale windows and grid cells all have that form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from patchmill.loaders.operation import Operation

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Range = tuple[float, float]
Chance = float | tuple[float, ...]  # one probability, or one for each view of the group

BACKGROUNDS = ("grey", "texture", "images")  # of copy-paste


@dataclass(frozen=True)
class Crop:
    """Torchvision's random resized crop: random area and aspect ratio, centred after ten tries."""

    kind: ClassVar[str] = "crop"
    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    # Smallest overlap with every earlier view of the recipe's first group (GTSA), as a share of the
    # image's area; rejected crops are redrawn, at most 50 times.
    min_overlap: float = 0.0


@dataclass(frozen=True)
class Window:
    """A fixed-scale, view-sized window of the image resized to `short_side`, uniformly placed."""

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
    """The view drawn by `of`, cut into rows x columns cells, each of them a view, in row order."""

    kind: ClassVar[str] = "grid"
    rows: int = 7
    columns: int = 7
    of: Law = Crop()


@dataclass(frozen=True)
class Spread:
    """Rows x columns windows of one scale, evenly spaced from edge to edge of the whole image.

    Deterministic, for evaluating networks trained on `Window` or on square `Crop`s of one scale. A
    single row or column is centred.
    """

    kind: ClassVar[str] = "spread"
    rows: int = 4
    columns: int = 4
    area: float = 0.2  # of a window, as a share of the image's area
    short_side: int | None = None  # or: windows of the view's size, of the image resized to this


@dataclass(frozen=True)
class Colour:
    """Colour jitter (with probability `p`, four operations in random order), and greyscale.

    Factors are uniform in [max(0, 1-x), 1+x], the hue shift in [-hue, hue] turns.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    p: Chance = 0.8
    grey: Chance = 0.2
    grey_first: bool = False  # greyscale before jitter, as in MoCo v1


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with reflected borders; without `kernel`, all taps within 3 sigma."""

    p: Chance = 0.5
    sigma: Range = (0.1, 2.0)
    kernel: int | None = None


@dataclass(frozen=True)
class CopyPaste:
    """Copy-paste (DiLo): the image's masked foreground, composited on another background.

    The result is the same as compositing the whole image before cropping it; padding stays black.
    Views are pasted independently, the cells of a grid together. Images without a usable mask are
    left unchanged.
    """

    FORMER_NAMES: ClassVar[dict[str, str]] = {"blur_radius": "blur_sigma"}
    p: Chance = 0.3
    # grey: one level, uniform over 0 to 254; texture: procedural, seeded; images: the sample with
    # the least foreground of 8 random ones, or an image of the loader's `backgrounds`, enlarged to
    # cover the image.
    background: str = "grey"
    blur_p: float = 0.5  # probability of blurring the mask
    blur_sigma: float = 5.0  # of the mask, in pixels of an image whose longer side is 500


@dataclass(frozen=True)
class Views:
    """A view group: `count` views of one `size`, drawn from the same distributions.

    For a Grid or Spread, `size` is that of one cell or window, and `count` the number of grids.
    """

    name: str
    count: int
    size: int
    crop: Crop | Window | Shift | Centre | Grid | Spread = Crop()
    flip: Chance = 0.5
    turns: bool = False  # rotate by a random number of quarter turns
    colour: Colour | None = None
    blur: Blur | None = None
    solarise: Chance = 0.0  # invert values >= 128/255
    interpolation: str = "bilinear"  # or "bicubic"; both antialiased
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    paste: CopyPaste | None = None
    extra: tuple[Operation, ...] = ()  # further operations on the finished views, in this order

    @property
    def total(self) -> int:
        """Number of views in the group, counting every cell of a grid."""
        grid = self.crop
        return self.count * (grid.rows * grid.columns if isinstance(grid, Grid | Spread) else 1)


def chance_of(chance: Chance, view: int) -> float:
    """The probability for one view of a group."""
    return chance[view] if isinstance(chance, tuple) else chance
