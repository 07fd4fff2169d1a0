"""Plain data to dataclasses and back: values are converted, or refused in one sentence."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pytest

from patchmill.loaders.common import settings as typed
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.settings import Bounds


@dataclass
class Inner:
    rate: Annotated[float, Bounds(above=0)] = 1.0


@dataclass
class Outer:
    count: Annotated[int, Bounds(least=1)] = 1
    kind: Literal["one", "two"] = "one"
    pair: tuple[float, float] = (0.0, 1.0)
    widths: list[int] = field(default_factory=list)
    layout: bool | Literal["auto"] = "auto"
    name: str | None = None
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"count": 3.0}, "count", 3),
        ({"pair": [1, 2]}, "pair", (1.0, 2.0)),
        ({"widths": (1, 2)}, "widths", [1, 2]),
        ({"layout": False}, "layout", False),
        ({"name": None}, "name", None),
        ({"inner": {"rate": 2}}, "inner", Inner(2.0)),
        ({}, "inner", Inner()),
    ],
)
def test_values_are_converted_to_the_type_of_their_field(
    given: dict[str, Any], field: str, value: Any
):
    made = getattr(typed.from_plain(Outer, given), field)
    assert made == value and type(made) is type(value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"counts": 1}, r"there is no setting counts; did you mean 'count'\?"),
        ({"inner": {"rat": 1}}, r"there is no setting inner.rat; did you mean 'rate'\?"),
        ({"count": 0}, "count must be a whole number of at least 1, not 0"),
        ({"count": True}, "count must be a whole number of at least 1, not True"),
        ({"count": 1.5}, "count must be a whole number"),
        ({"inner": {"rate": 0}}, "inner.rate must be a number above 0, not 0"),
        ({"inner": {"rate": 10**400}}, "inner.rate must be a number above 0"),
        ({"inner": {"rate": float("nan")}}, "inner.rate must be a number above 0, not nan"),
        ({"inner": 3}, "inner must be a mapping of settings, not 3"),
        ({"kind": "tow"}, r"kind must be one \| two, not 'tow'; did you mean 'two'\?"),
        ({"kind": ["one"]}, r"kind must be one \| two"),
        ({"pair": [1]}, r"pair must be a list of 2 numbers, not \[1\]"),
        ({"pair": "ab"}, "pair must be a list of 2 numbers"),
        ({"widths": ["x"]}, r"widths\[0\] must be a whole number, not 'x'"),
        ({"layout": 1}, "layout must be true or false or auto, not 1"),
        ({"name": 1}, "name must be text or none, not 1"),
    ],
)
def test_a_value_of_another_type_is_refused(given: dict[str, Any], message: str):
    with pytest.raises(MillError, match=message):
        typed.from_plain(Outer, given)


def test_plain_data_round_trip():
    made = typed.from_plain(Outer, {"pair": [3, 4], "widths": [1], "inner": {"rate": 0.5}})
    assert typed.to_plain(made)["pair"] == [3.0, 4.0]
    assert typed.from_plain(Outer, typed.to_plain(made)) == made


@dataclass(frozen=True)
class Disc:
    kind: ClassVar[str] = "disc"
    radius: float = 1.0


@dataclass(frozen=True)
class Square:
    kind: ClassVar[str] = "square"
    FORMER_NAMES: ClassVar = {"width": "side"}
    side: float = 1.0


@dataclass(frozen=True)
class Shape:
    name: str
    form: Disc | Square = Disc()


@dataclass(frozen=True)
class Drawing:
    shapes: tuple[Shape, ...]


def test_a_kind_chooses_among_dataclasses():
    drawing = Drawing((Shape("a", Square(2.0)), Shape("b")))
    plain = typed.to_plain(drawing)
    assert plain["shapes"][0] == {"name": "a", "form": {"kind": "square", "side": 2.0}}
    assert typed.from_plain(Drawing, plain) == drawing
    assert typed.checked_fields(drawing) == {"shapes": drawing.shapes}


def test_former_names_of_fields_are_read():
    assert typed.from_plain(Square, {"width": 3}) == Square(3.0)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([3], "the drawing: shapes number 1 must be a mapping of settings, not 3"),
        ([{}], "the drawing: shapes number 1: name must be given"),
        ([{"name": "a", "colour": 1}], "shapes 'a': there is no setting colour; there are: name"),
        ([{"name": "a", "form": {}}], "shapes 'a': form must be a mapping whose kind is one of"),
        (
            [{"name": "a", "form": {"kind": "disc", "radiu": 1}}],
            "shapes 'a': there is no setting form.radiu; did you mean 'radius'",
        ),
        (
            [{"name": "a", "form": {"kind": "disc", "radius": "x"}}],
            "shapes 'a': form.radius must be a number, not 'x'",
        ),
    ],
)
def test_messages_name_the_item_of_a_list(shapes: list[Any], message: str):
    with pytest.raises(MillError, match=message):
        typed.from_plain(Drawing, {"shapes": shapes}, "the drawing: ")
