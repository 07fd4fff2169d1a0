"""Values become what their annotations say, or a sentence."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.training.config import typed
from patchmill.training.config.typed import Span


@dataclass
class Inner:
    rate: Annotated[float, Span(above=0)] = 1.0


@dataclass
class Outer:
    count: Annotated[int, Span(least=1)] = 1
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
def test_values_take_the_type_of_their_field(given: dict[str, Any], field: str, value: Any):
    made = getattr(typed.make(Outer, given), field)
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
def test_a_value_of_another_type_is_a_sentence(given: dict[str, Any], message: str):
    with pytest.raises(MillError, match=message):
        typed.make(Outer, given)


def test_there_and_back():
    made = typed.make(Outer, {"pair": [3, 4], "widths": [1], "inner": {"rate": 0.5}})
    assert typed.plain(made)["pair"] == [3.0, 4.0]
    assert typed.make(Outer, typed.plain(made)) == made
