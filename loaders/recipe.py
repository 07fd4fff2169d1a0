"""What views to make of an image: frozen, hashable data with a YAML form and a fingerprint.

Every view is *a window of a virtual resize of a box*: a law below picks the box in source pixels,
the size that box is resized to, and which window of the result is the view. Random resized crops,
evaluation crops, padded shifts, fixed-scale windows and the cells of a grid are all of that form.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from patchmill.loaders.common import settings
from patchmill.loaders.common.errors import MillError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Range = tuple[float, float]
Chance = float | tuple[float, ...]  # one probability, or one for each view of the group

BACKGROUNDS = ("grey", "texture", "images")  # of a copy-paste

# Raised whenever a change alters what a (recipe, seed, epoch, id) draws or how it is rendered.
LAWS_VERSION = 2


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

    p: Chance = 0.3
    # grey: one level, uniform over 0 to 254; texture: made from a seed; images: another sample of
    # the data, that of 8 with least foreground, or an image of the loader's `backgrounds`; enlarged
    # until it covers the image, of which a part is seen.
    background: str = "grey"
    blur_p: float = 0.5  # of softening the mask first, where there is a paste
    blur_radius: float = 5.0  # sigma in pixels of the stored image


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


@dataclass(frozen=True)
class Recipe:
    """All view groups of one training recipe, in the order in which a batch lists them."""

    views: tuple[Views, ...]
    name: str = field(default="custom", compare=False)
    provenance: str = field(default="", compare=False)  # where the numbers come from

    def __post_init__(self) -> None:
        for name, value in settings.checked_fields(self).items():
            object.__setattr__(self, name, value)
        check(self)

    @property
    def total(self) -> int:
        return sum(group.total for group in self.views)

    @property
    def pixels(self) -> int:
        """Output pixels for one image."""
        return sum(group.total * group.size**2 for group in self.views)

    @property
    def pastes_images(self) -> bool:
        """Whether any view may have another image behind it."""
        return any(group.paste and group.paste.background == "images" for group in self.views)

    def group(self, name: str) -> Views:
        for group in self.views:
            if group.name == name:
                return group
        raise MillError(f"the recipe {self.name} has no view group {name!r}")

    def fingerprint(self) -> str:
        """Equal for recipes that make equal views; goes into loader states and checkpoints."""
        return _fingerprint(self)

    def to_dict(self) -> dict[str, Any]:
        return settings.to_plain(self)

    def to_yaml(self) -> str:
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=100)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Recipe:
        return settings.from_plain(Recipe, data, "the recipe: ")

    @staticmethod
    def from_yaml(text: str) -> Recipe:
        import yaml

        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            problem = " ".join(str(error).split())
            raise MillError(f"the recipe is not valid YAML: {problem}") from None
        return Recipe.from_dict(data)

    def __str__(self) -> str:
        groups = ", ".join(f"{v.total} x {v.size}px {v.name}" for v in self.views)
        return f"{self.name}: {groups}"


def load(recipe: Recipe | str | Path) -> Recipe:
    """A recipe from a Recipe, a preset with its knobs (`"dino(local_crops=6)"`) or a YAML file."""
    if isinstance(recipe, Recipe):
        return recipe
    text = str(recipe)
    if text.endswith((".yaml", ".yml")):
        try:
            return Recipe.from_yaml(Path(text).read_text(encoding="utf-8"))
        except OSError as error:
            raise MillError(f"cannot read the recipe {text}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise MillError(f"cannot read the recipe {text}: it is not a text file") from None
    from patchmill.loaders import presets
    from patchmill.loaders.common import calls

    return calls.call(text, presets.ALL, "preset")


# ----------------------------------------------------------------------------------------- sense

_LONGEST_SIDE = 16_384  # of a virtual resize's shorter side; keeps coordinates within int32


def check(recipe: Recipe) -> None:
    """Raise a MillError for a recipe that makes no sense."""
    if not recipe.views:
        raise MillError("the recipe has no views: give it at least one group")
    names = [group.name for group in recipe.views]
    for name in names:
        if not name or names.count(name) > 1:
            raise MillError(f"view groups need distinct names, but {name!r} is empty or used twice")
    for group in recipe.views:
        for holds, complaint in [
            *_group_rules(group),
            *_crop_rules(group, recipe.views[0]),
            *_colour_rules(group),
            *_blur_rules(group),
            *_paste_rules(group),
        ]:
            if not holds:
                raise MillError(f"views {group.name!r}: {complaint}")
    if recipe.total > 65_536:
        raise MillError(f"a recipe may have 65 536 views at most, this one has {recipe.total}")


Rules = list[tuple[bool, str]]  # what must hold, and what to say where it does not


def _group_rules(group: Views) -> Rules:
    return [
        (group.count >= 1, f"count must be at least 1, not {group.count}"),
        (1 <= group.size <= 8192, f"size must be 1 to 8192 pixels, not {group.size}"),
        (
            group.interpolation in ("bilinear", "bicubic"),
            f"interpolation must be bilinear or bicubic, not {group.interpolation!r}",
        ),
        (all(s > 0 for s in group.std), f"std must be positive, not {group.std}"),
        *_chance_rules(group, "flip", group.flip),
        *_chance_rules(group, "solarise", group.solarise),
    ]


def _crop_rules(group: Views, first: Views) -> Rules:
    law, side, rules = group.crop, group.size, Rules()
    if isinstance(law, Spread):
        rules += [
            (law.rows >= 1 and law.columns >= 1, "a spread needs rows and columns of at least 1"),
            (0 < law.area <= 1, f"area must be above 0 and at most 1, not {law.area}"),
        ]
    if isinstance(law, Grid):
        rules += [
            (law.rows >= 1 and law.columns >= 1, "a grid needs rows and columns of at least 1"),
            (not group.turns, "the cells of a grid cannot be turned: set turns to false"),
        ]
        side = group.size * max(law.rows, law.columns)
        law = law.of
    if isinstance(law, Crop):
        low, high = law.scale
        rules += [
            (0 < low <= high <= 1, f"scale must satisfy 0 < low <= high <= 1, not {law.scale}"),
            (
                0 < law.ratio[0] <= law.ratio[1],
                f"ratio must satisfy 0 < low <= high, not {law.ratio}",
            ),
            (
                0 <= law.min_overlap < low,
                f"min_overlap must be 0 or more, and below the smallest scale, {low}",
            ),
            (
                law.min_overlap == 0 or isinstance(first.crop, Crop),
                f"min_overlap asks for crops to overlap with, but {first.name!r} has none: "
                "set it to 0 or put a group of plain crops first",
            ),
        ]
    if isinstance(law, Window | Centre | Spread) and law.short_side is not None:
        rules += [
            (
                side <= law.short_side <= _LONGEST_SIDE,
                f"short_side must be at least the view's {side} pixels and at most "
                f"{_LONGEST_SIDE}, not {law.short_side}",
            )
        ]
    if isinstance(law, Shift):
        rules += [(0 <= law.pad <= side, f"pad must be 0 to the view's {side}, not {law.pad}")]
    return rules


def _colour_rules(group: Views) -> Rules:
    if not group.colour:
        return []
    colour = group.colour
    return [
        *(
            (
                0 <= getattr(colour, n) <= 2.9,
                f"colour.{n} must be 0 to 2.9, not {getattr(colour, n)}",
            )
            for n in ("brightness", "contrast", "saturation")
        ),
        (0 <= colour.hue <= 0.5, f"colour.hue must be 0 to 0.5 turns, not {colour.hue}"),
        *_chance_rules(group, "colour.p", colour.p),
        *_chance_rules(group, "colour.grey", colour.grey),
    ]


def _blur_rules(group: Views) -> Rules:
    if not group.blur:
        return []
    (low, high), kernel = group.blur.sigma, group.blur.kernel
    return [
        (
            0 < low <= high <= 10,
            f"blur.sigma must satisfy 0 < low <= high <= 10, not {group.blur.sigma}",
        ),
        (
            kernel is None or (kernel % 2 == 1 and 1 <= kernel <= 61),
            f"blur.kernel must be odd and 1 to 61, not {kernel}",
        ),
        *_chance_rules(group, "blur.p", group.blur.p),
    ]


def _paste_rules(group: Views) -> Rules:
    if not group.paste:
        return []
    paste = group.paste
    return [
        *_chance_rules(group, "paste.p", paste.p),
        *_chance_rules(group, "paste.blur_p", paste.blur_p),
        (
            paste.background in BACKGROUNDS,
            f"paste.background must be {', '.join(BACKGROUNDS[:-1])} or {BACKGROUNDS[-1]}, "
            f"not {paste.background!r}",
        ),
        (
            0 < paste.blur_radius <= 50,
            f"paste.blur_radius must be above 0 and at most 50 pixels, not {paste.blur_radius}",
        ),
    ]


def _chance_rules(group: Views, name: str, chance: Chance) -> Rules:
    values = chance if isinstance(chance, tuple) else (chance,)
    return [
        (
            all(0 <= p <= 1 for p in values),
            f"{name} must be probabilities between 0 and 1, not {chance}",
        ),
        (
            not isinstance(chance, tuple) or len(chance) == group.count,
            f"{name} lists {len(values)} probabilities for {group.count} views",
        ),
    ]


def chance_of(chance: Chance, view: int) -> float:
    """The probability for one view of a group."""
    return chance[view] if isinstance(chance, tuple) else chance


# Settings that came later, with what they are where they are not used: fingerprints stay.
_SINCE = [("paste", None)]


@functools.lru_cache(maxsize=256)
def _fingerprint(recipe: Recipe) -> str:
    groups = [
        {name: value for name, value in group.items() if (name, value) not in _SINCE}
        for group in recipe.to_dict()["views"]
    ]
    views = json.dumps([groups, LAWS_VERSION], sort_keys=True)
    return hashlib.sha256(views.encode()).hexdigest()[:16]
