"""What views to make of an image: frozen, hashable data with a YAML form and a fingerprint.

Every view is *a window of a virtual resize of a box*: a law below picks the box in source pixels,
the size that box is resized to, and which window of the result is the view. Random resized crops,
evaluation crops, padded shifts, fixed-scale windows and the cells of a grid are all of that one form.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from patchmill.loaders.errors import MillError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Range = tuple[float, float]
Chance = float | tuple[float, ...]  # one probability, or one for each view of the group

# Raised whenever a change alters what a given (recipe, seed, epoch, id) draws or how it is rendered.
LAWS_VERSION = 1


@dataclass(frozen=True)
class Crop:
    """Torchvision's random resized crop: area and aspect ratio drawn, ten attempts, central fallback."""

    kind: ClassVar[str] = "crop"
    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    # Share of the image's area that the crop must have in common with every view of the recipe's
    # first group drawn before it (GTSA); rejected crops are drawn again, at most 50 times.
    min_overlap: float = 0.0


@dataclass(frozen=True)
class Window:
    """A view-sized window, uniformly placed, of the image resized to `short_side`: one fixed scale."""

    kind: ClassVar[str] = "window"
    short_side: int = 256


@dataclass(frozen=True)
class Shift:
    """The image resized to the view's size, padded with `pad` black pixels, and randomly shifted."""

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
class Views:
    """One group of views: `count` tensors of one `size` made by the same laws.

    A grid's `size` is that of one cell, and its `count` the number of grids.
    """

    name: str
    count: int
    size: int
    crop: Crop | Window | Shift | Centre | Grid = Crop()
    flip: Chance = 0.5
    turns: bool = False  # a random number of counter-clockwise quarter turns
    colour: Colour | None = None
    blur: Blur | None = None
    solarise: Chance = 0.0  # inverts values >= 128/255
    interpolation: str = "bilinear"  # or "bicubic"; both antialiased
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def total(self) -> int:
        """How many views the group holds: cells are views."""
        grid = self.crop
        return self.count * (grid.rows * grid.columns if isinstance(grid, Grid) else 1)


@dataclass(frozen=True)
class Recipe:
    """All view groups of one training recipe, in the order in which a batch lists them."""

    views: tuple[Views, ...]
    name: str = field(default="custom", compare=False)
    provenance: str = field(default="", compare=False)  # where the numbers come from

    def __post_init__(self) -> None:
        check(self)

    @property
    def total(self) -> int:
        return sum(group.total for group in self.views)

    @property
    def pixels(self) -> int:
        """Output pixels for one image."""
        return sum(group.total * group.size**2 for group in self.views)

    def group(self, name: str) -> Views:
        return next(group for group in self.views if group.name == name)

    def fingerprint(self) -> str:
        """Equal for recipes that make equal views; goes into loader states and checkpoints."""
        return _fingerprint(self)

    def to_dict(self) -> dict[str, Any]:
        return _to_plain(self)

    def to_yaml(self) -> str:
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=100)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Recipe:
        return _from_plain(Recipe, data, "recipe")

    @staticmethod
    def from_yaml(text: str) -> Recipe:
        import yaml

        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise MillError(f"the recipe is not valid YAML: {' '.join(str(error).split())}") from None
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
            return Recipe.from_yaml(Path(text).read_text())
        except OSError as error:
            raise MillError(f"cannot read the recipe {text}: {error.strerror}") from None
    from patchmill.loaders import call, presets

    return call.call(text, presets.ALL, "preset")


# ----------------------------------------------------------------------------------------- sense


def check(recipe: Recipe) -> None:
    """Raise a MillError for a recipe that makes no sense."""
    if not recipe.views:
        raise MillError("the recipe has no views: give it at least one group")
    names = [group.name for group in recipe.views]
    for name in names:
        if not isinstance(name, str) or not name or names.count(name) > 1:
            raise MillError(f"view groups need distinct names, but {name!r} is empty or used twice")
    for group in recipe.views:
        _check_group(group, f"view group {group.name!r}")
    if recipe.total > 65_536:
        raise MillError(f"a recipe may have 65 536 views at most, this one has {recipe.total}")


def _check_group(group: Views, where: str) -> None:
    law = group.crop.of if isinstance(group.crop, Grid) else group.crop
    side = group.size * max(group.crop.rows, group.crop.columns) if isinstance(group.crop, Grid) else group.size
    rules = [
        (group.count >= 1, f"count must be at least 1, not {group.count}"),
        (1 <= group.size <= 8192, f"size must be 1 to 8192 pixels, not {group.size}"),
        (group.interpolation in ("bilinear", "bicubic"), "interpolation is bilinear or bicubic"),
        (all(s > 0 for s in group.std), f"std must be positive, not {group.std}"),
        (len(group.mean) == len(group.std) == 3, "mean and std have three numbers each"),
        *_check_chance(group, "flip", group.flip),
        *_check_chance(group, "solarise", group.solarise),
    ]
    if isinstance(group.crop, Grid):
        rules += [
            (group.crop.rows >= 1 and group.crop.columns >= 1, "a grid needs rows and columns >= 1"),
            (not group.turns, "the cells of a grid cannot be turned: set turns to false"),
        ]
    if isinstance(law, Crop):
        low, high = law.scale
        rules += [
            (0 < low <= high <= 1, f"scale must satisfy 0 < low <= high <= 1, not {law.scale}"),
            (0 < law.ratio[0] <= law.ratio[1], f"ratio must satisfy 0 < low <= high, not {law.ratio}"),
            (0 <= law.min_overlap < low, f"min_overlap must be below the smallest scale, {low}"),
        ]
    if isinstance(law, Window | Centre):
        rules += [(law.short_side >= side, f"short_side {law.short_side} is smaller than the view, {side}")]
    if isinstance(law, Shift):
        rules += [(0 <= law.pad, f"pad must not be negative, not {law.pad}")]
    if group.colour:
        colour = group.colour
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(colour, name)
            rules += [(value >= 0, f"{name} must not be negative, not {value}")]
        rules += [(0 <= colour.hue <= 0.5, f"hue must be 0 to 0.5 turns, not {colour.hue}")]
        rules += [*_check_chance(group, "colour.p", colour.p), *_check_chance(group, "colour.grey", colour.grey)]
    if group.blur:
        low, high = group.blur.sigma
        kernel = group.blur.kernel
        rules += [
            (0 < low <= high <= 10, f"blur sigma must satisfy 0 < low <= high <= 10, not {group.blur.sigma}"),
            (kernel is None or (kernel % 2 == 1 and 1 <= kernel <= 61), f"blur kernel must be odd and at most 61, not {kernel}"),
            *_check_chance(group, "blur.p", group.blur.p),
        ]
    for holds, complaint in rules:
        if not holds:
            raise MillError(f"{where}: {complaint}")


def _check_chance(group: Views, name: str, chance: Chance) -> list[tuple[bool, str]]:
    values = chance if isinstance(chance, tuple) else (chance,)
    return [
        (all(0 <= p <= 1 for p in values), f"{name} must be probabilities between 0 and 1, not {chance}"),
        (
            not isinstance(chance, tuple) or len(chance) == group.count,
            f"{name} lists {len(values)} probabilities for {group.count} views",
        ),
    ]


def chance_of(chance: Chance, view: int) -> float:
    """The probability for one view of a group."""
    return chance[view] if isinstance(chance, tuple) else chance


# ------------------------------------------------------------------------------- plain data and back

_LAWS: dict[str, type] = {law.kind: law for law in (Crop, Window, Shift, Centre, Grid)}


@functools.lru_cache(maxsize=256)
def _fingerprint(recipe: Recipe) -> str:
    plain = recipe.to_dict()
    views = json.dumps([plain["views"], LAWS_VERSION], sort_keys=True)
    return hashlib.sha256(views.encode()).hexdigest()[:16]


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: _to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": value.kind, **plain} if isinstance(value, tuple(_LAWS.values())) else plain
    return [_to_plain(item) for item in value] if isinstance(value, tuple) else value


def _from_plain(cls: type, data: Any, where: str) -> Any:
    from patchmill.loaders.call import nearest

    if not isinstance(data, dict):
        raise MillError(f"{where} must be a mapping of settings, not {data!r}")
    data = {key: value for key, value in data.items() if key != "kind"}
    types = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            raise MillError(f"{where} has no setting {key!r}{nearest(str(key), fields)}")
    missing = [n for n, f in fields.items() if n not in data and not _has_default(f)]
    if missing:
        raise MillError(f"{where} lacks {', '.join(missing)}")
    return cls(**{key: _field(types[key], value, f"{where}: {key}") for key, value in data.items()})


def _has_default(f: dataclasses.Field[Any]) -> bool:
    return f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING


def _field(annotation: Any, value: Any, where: str) -> Any:
    """One setting, checked against its annotation: numbers are numbers, laws are known, lists are tuples."""
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    laws = [option for option in options if option in _LAWS.values()]
    if laws:
        kind = value.get("kind") if isinstance(value, dict) else None
        if kind not in [law.kind for law in laws]:
            raise MillError(f"{where} needs a kind, one of: {', '.join(law.kind for law in laws)}")
        return _from_plain(_LAWS[kind], value, where)
    for option in options:
        if option is type(None) and value is None:
            return None
        if dataclasses.is_dataclass(option) and isinstance(value, dict):
            return _from_plain(option, value, where)
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            of = typing.get_args(option)
            kinds = [of[0]] * len(value) if of[-1] is Ellipsis else of
            if len(kinds) == len(value):
                return tuple(_field(k, v, where) for k, v in zip(kinds, value, strict=True))
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            if math.isfinite(value):
                return float(value)
        if option in (int, str, bool) and type(value) is option:
            return value
    wanted = " or ".join(getattr(o, "__name__", str(o)) if typing.get_origin(o) is None else "list of numbers" for o in options)
    raise MillError(f"{where} must be {wanted}, not {value!r}")


def _is_union(annotation: Any) -> bool:
    import types

    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
