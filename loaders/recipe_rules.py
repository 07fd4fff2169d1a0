"""Validate a recipe's view groups: ranges of settings, and settings that exclude each other."""

from __future__ import annotations

from collections.abc import Sequence

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief
from patchmill.loaders.recipe_parts import (
    BACKGROUNDS,
    Centre,
    Chance,
    Crop,
    Grid,
    Shift,
    Spread,
    Views,
    Window,
)

_LONGEST_SIDE = 16_384  # of a virtual resize's shorter side; keeps coordinates within int32
_MOST_OPERATIONS = 64  # of a group's `extra`; keeps their numbers within the random draws' counter
_MOST_VIEWS = 65_536  # of a recipe; keeps view numbers within the counter of the random draws


def check_views(views: Sequence[Views]) -> None:
    """Raise a MillError for view groups that contradict themselves or each other."""
    if not views:
        raise MillError("the recipe has no views: give it at least one group")
    names = [group.name for group in views]
    for name in names:
        if not name or names.count(name) > 1:
            raise MillError(f"view groups need distinct names, but {name!r} is empty or used twice")
    for group in views:
        for holds, complaint in [
            *_group_rules(group),
            *_crop_rules(group, views[0]),
            *_colour_rules(group),
            *_blur_rules(group),
            *_paste_rules(group),
            *_extra_rules(group),
        ]:
            if not holds:
                raise MillError(f"views {group.name!r}: {complaint}")
    total = sum(group.total for group in views)
    if total > _MOST_VIEWS:
        raise MillError(f"a recipe may have 65 536 views at most, this one has {total}")


Rules = list[tuple[bool, str]]  # a condition that must hold, and the complaint if it does not


def _group_rules(group: Views) -> Rules:
    return [
        (group.count >= 1, f"count must be at least 1, not {group.count}"),
        (1 <= group.size <= 8192, f"size must be 1 to 8192 pixels, not {group.size}"),
        (
            group.interpolation in ("bilinear", "bicubic"),
            f"interpolation must be bilinear or bicubic, not {brief(group.interpolation)}",
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
                f"min_overlap needs crops to overlap with, but {first.name!r} has none: "
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
            f"not {brief(paste.background)}",
        ),
        (
            0 < paste.blur_sigma <= 50,
            f"paste.blur_sigma must be above 0 and at most 50 pixels, not {paste.blur_sigma}",
        ),
    ]


def _extra_rules(group: Views) -> Rules:
    return [
        (
            len(group.extra) <= _MOST_OPERATIONS,
            f"extra may list {_MOST_OPERATIONS} operations at most, not {len(group.extra)}",
        ),
        *(
            rule
            for i, operation in enumerate(group.extra)
            for rule in _chance_rules(group, f"extra[{i}].p", operation.p)
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
