"""Random valid recipes, for tests."""

from __future__ import annotations

from hypothesis import strategies as st

from patchmill.loaders.recipe import (
    BACKGROUNDS,
    Blur,
    Centre,
    Colour,
    CopyPaste,
    Crop,
    Grid,
    Law,
    Recipe,
    Shift,
    Views,
    Window,
)


def ranges(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    number = st.floats(low, high, allow_subnormal=False)
    return st.tuples(number, number).map(lambda pair: (min(pair), max(pair)))


def chances(count: int) -> st.SearchStrategy[float | tuple[float, ...]]:
    chance = st.floats(0, 1)
    return chance | st.tuples(*[chance] * count)


@st.composite
def laws(draw: st.DrawFn, side: int, overlap: bool = False) -> Law:
    kind = draw(st.sampled_from([Crop] if overlap else [Crop, Window, Shift, Centre]))
    if kind is Crop:
        scale = draw(ranges(0.01, 1))
        return Crop(scale, draw(ranges(0.05, 20)), scale[0] * draw(st.floats(0, 0.99)) * overlap)
    if kind is Shift:
        return Shift(draw(st.integers(0, min(side, 8))))
    return kind(draw(st.integers(side, 2 * side)))


@st.composite
def groups(draw: st.DrawFn, name: str, overlap: bool) -> Views:
    size, count = draw(st.integers(8, 64)), draw(st.integers(1, 3))
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    grid = draw(st.booleans()) and not overlap
    law = draw(laws(size * max(rows, columns) if grid else size, overlap))
    strength = st.floats(0, 2)
    return Views(
        name,
        count,
        size,
        Grid(rows, columns, law) if grid else law,
        flip=draw(chances(count)),
        turns=draw(st.booleans()) and not grid,
        colour=draw(
            st.none()
            | st.builds(
                Colour,
                strength,
                strength,
                strength,
                st.floats(0, 0.5),
                chances(count),
                chances(count),
                st.booleans(),
            )
        ),
        blur=draw(
            st.none()
            | st.builds(Blur, chances(count), ranges(0.1, 2), st.sampled_from([None, 1, 9]))
        ),
        solarise=draw(chances(count)),
        interpolation=draw(st.sampled_from(["bilinear", "bicubic"])),
        mean=tuple(draw(st.floats(-1, 1)) for _ in range(3)),
        std=tuple(draw(st.floats(0.1, 2)) for _ in range(3)),
        paste=draw(
            st.none()
            | st.builds(
                CopyPaste,
                chances(count),
                st.sampled_from(BACKGROUNDS),
                st.floats(0, 1),
                st.floats(0.5, 50),
            )
        ),
    )


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    overlap = draw(st.booleans())
    names = draw(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=3, unique=True))
    return Recipe(tuple(draw(groups(name, overlap)) for name in names), name=draw(st.text()))
