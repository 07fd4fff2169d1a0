"""Operations in recipes: read from YAML, part of fingerprints, refused with one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patchmill.loaders import operation as registry
from patchmill.loaders import operations, presets
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.operation import Operation
from patchmill.loaders.operations import GaussianNoise, Posterise, RandomErasing, Rotation
from patchmill.loaders.recipe import Grid, Recipe, Shift, Views


def recipe(*extra: Any, **settings: Any) -> Recipe:
    return Recipe((Views("a", 2, 16, extra=extra, **settings),))


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type[Operation]]]:
    """The registry, restored after a test."""
    known = dict(registry.KINDS)
    monkeypatch.setattr(registry, "KINDS", known)
    yield known


@dataclass(frozen=True)
class Swap(Operation):
    """Swap red and blue."""

    order: tuple[int, ...] = (2, 1, 0)

    def __call__(self, views: torch.Tensor, draws: operations.Draws) -> torch.Tensor:
        return views[:, list(self.order)]


EVERY_KIND = (
    RandomErasing(p=(0.1, 0.2), mode="pixel", count=(1, 3)),
    Rotation(degrees=(0, 360), fill=(0.0, 0.5, 1.0)),
    GaussianNoise(sigma=(0.0, 0.2)),
    Posterise(bits=3),
    operations.Sharpness(),
    operations.Gamma(),
    operations.AutoContrast(),
    operations.Equalise(),
    operations.RandAugment(deviation=1.0),
)


def test_yaml_gives_operations_back():
    made = recipe(*EVERY_KIND)
    again = Recipe.from_yaml(made.to_yaml())
    assert again == made and hash(again) == hash(made)
    assert again.fingerprint() == made.fingerprint() and again.to_yaml() == made.to_yaml()
    assert set(registry.KINDS) >= {operation.kind for operation in EVERY_KIND}


def test_yaml_is_read_before_the_operations_are_imported():
    code = (
        "import sys; from patchmill.loaders import Recipe; assert 'torch' not in sys.modules\n"
        f"print(Recipe.from_yaml({recipe(GaussianNoise()).to_yaml()!r}).views[0].extra)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.startswith("(GaussianNoise(p=0.5"), run.stderr


def test_operations_and_adapters_are_there_without_an_import_of_their_own():
    code = (
        "import sys; from patchmill import loaders; assert 'torch' not in sys.modules\n"
        "print(loaders.operations.Mix.__name__, loaders.adapt.as_tuples.__name__)\n"
        "try: loaders.operation_s\nexcept AttributeError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = ["Mix as_tuples", "module 'patchmill.loaders' has no attribute 'operation_s'"]
    assert run.stdout.splitlines() == lines, run.stderr


def test_fingerprints_depend_on_the_operations_and_their_order():
    one, other = RandomErasing(), Rotation()
    recipes = [recipe(), recipe(one), recipe(one, other), recipe(other, one), recipe(one, one)]
    recipes.append(recipe(replace(one, p=0.3)))
    assert len({made.fingerprint() for made in recipes}) == len(recipes)


def test_a_custom_operation_is_read_back_once_registered(kinds: dict[str, type[Operation]]):
    made = recipe(Swap(p=0.5, order=[1, 2, 0]))
    assert made.views[0].extra == (Swap(0.5, (1, 2, 0)),)
    text = made.to_yaml()
    with pytest.raises(
        MillError, match=r"extra\[0\]: there is no operation 'Swap'.*module:Name, or"
    ):
        Recipe.from_yaml(text)
    assert operations.operation(Swap) is Swap and kinds["Swap"] is Swap
    assert Recipe.from_yaml(text) == made


def test_a_class_that_is_defined_again_replaces_itself(kinds: dict[str, type[Operation]]):
    def define() -> type[Operation]:
        @operations.operation
        @dataclass(frozen=True)
        class Own(Operation):
            pass

        return Own

    first, again = define(), define()
    assert kinds["Own"] is again is not first


def test_yaml_names_a_class_by_its_module(
    kinds: dict[str, type[Operation]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lines = [
        "from dataclasses import dataclass",
        "from patchmill.loaders.operations import Operation",
    ]
    lines += ["@dataclass(frozen=True)", "class Halve(Operation):", "    by: float = 0.5"]
    (tmp_path / "my_operations.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "views: [{name: a, count: 1, size: 8, extra: [{kind: 'my_operations:KIND', by: 0.25}]}]"
    made = Recipe.from_yaml(text.replace("KIND", "Halve"))
    assert made.views[0].extra[0].by == 0.25 and kinds["Halve"]
    assert Recipe.from_yaml(made.to_yaml()) == made
    with pytest.raises(MillError, match="the module my_operations has no 'Halves'"):
        Recipe.from_yaml(text.replace("KIND", "Halves"))
    with pytest.raises(MillError, match="classes derived from Operation"):
        Recipe.from_yaml(text.replace("KIND", "dataclass"))


def test_the_name_of_another_operation_is_refused(kinds: dict[str, type[Operation]]):
    with pytest.raises(MillError, match=r"an operation Rotation already, in patchmill\..*rename"):
        operations.operation(type("Rotation", (Swap,), {}))


def test_operations_are_added_to_presets():
    dino = presets.ALL["dino"]()
    made = operations.add(dino, RandomErasing(), group="local")
    assert [view.extra for view in made.views] == [(), (RandomErasing(),)]
    everywhere = operations.add(made, Posterise())
    assert [len(view.extra) for view in everywhere.views] == [1, 2]
    assert (made.name, dino.views[1].extra) == ("dino", ())
    with pytest.raises(MillError, match="no view group 'lokal'"):
        operations.add(dino, RandomErasing(), group="lokal")
    with pytest.raises(MillError, match="at least one operation"):
        operations.add(dino)


@dataclass(frozen=True)
class Listed(Operation):
    table: Any = None


@dataclass(frozen=True)
class Lists(Operation):
    names: list[str] = ()  # type: ignore[assignment]


def undecorated() -> Operation:
    return type("Plain", (Operation,), {})()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: recipe(lambda views: views), r"'a': extra\[0\] must be an operation, not a func"),
        (lambda: recipe("RandomErasing"), r"extra\[0\] must be an operation, not 'RandomErasing'"),
        (lambda: recipe(RandomErasing), r"not its class: write RandomErasing\(\)"),
        (lambda: Recipe((Views("a", 1, 8, extra=Swap()),)), r"extra must be a list of operations"),
        (lambda: recipe(Listed(table=[1])), r"table of Listed cannot be hashed"),
        (undecorated, r"Plain must be a dataclass: put @dataclass"),
        (lambda: recipe({"kind": "RandomErase"}), r"'RandomErase'; did you mean 'RandomErasing'"),
        (lambda: recipe({"p": 1.0}), r"extra\[0\] must be a mapping whose kind is one of: .*Rotat"),
        (lambda: recipe({"kind": "Rotation", "angle": 3}), r"no setting extra\[0\]\.angle"),
        (lambda: recipe({"kind": "Posterise", "bits": 9}), r"extra\[0\]\.bits .* from 1 to 8"),
        (lambda: RandomErasing(p="often"), r"RandomErasing: p must be a number or a list"),
        (lambda: recipe(RandomErasing(p=1.5)), r"extra\[0\]\.p must be probabilities between"),
        (lambda: recipe(Swap(p=(0.5,))), r"extra\[0\]\.p lists 1 probabilities for 2 views"),
        (lambda: recipe(*65 * [Swap()]), r"64 operations at most, not 65"),
        (lambda: RandomErasing(area=(0.5, 0.2)), r"area must satisfy 0 < low <= high <= 1, not"),
        (lambda: RandomErasing(mode="cubist"), r"mode must be const \| rand \| pixel"),
        (lambda: Rotation(degrees=(0, 400)), r"degrees must satisfy -360 <= low <= high <= 360"),
        (lambda: GaussianNoise(sigma=(-1, 1)), r"sigma must satisfy 0 <= low <= high, not"),
        (
            lambda: Lists(),
            r"Lists: names is annotated as list\[str\], but settings",
        ),
        (lambda: recipe(torch.nn.Identity()), r"extra\[0\] must be an operation, not a Identity"),
        (lambda: operations.operation(int), r"@operation is for classes derived from Operation"),
    ],
)
def test_mistakes_are_one_sentence(make: Any, complaint: str):
    with pytest.raises(MillError, match=complaint) as caught:
        made = make()
        if isinstance(made, Operation):
            recipe(made)
    assert "\n" not in str(caught.value)


def test_the_cells_of_a_grid_have_the_probability_of_their_grid():
    assert Recipe((Views("a", 2, 8, Grid(2, 2, Shift(1)), extra=(Swap(p=(0.0, 1.0)),)),))
