"""Operations against torchvision's functions of the same name, and against their promises."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from helpers_operations import apply, draws_of, photo_like
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from patchmill.loaders import operations
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.operations import (
    AutoContrast,
    Equalise,
    Gamma,
    GaussianNoise,
    Operation,
    Posterise,
    RandomErasing,
    Rotation,
    Sharpness,
    check,
)

SIZE = 33
VIEWS = photo_like(6, SIZE)
LEVEL = 1 / 255
CALLS = itertools.count()


def levels(views: torch.Tensor) -> torch.Tensor:
    return (views * 255).round().to(torch.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill", [(0.0, 0.0, 0.0), (0.1, 0.5, 0.9)])
def test_rotation(interpolation: Any, fill: tuple[float, float, float]):
    operation = Rotation(degrees=(-180, 180), fill=fill, interpolation=interpolation)
    angles = -180 + 360 * draws_of(6, SIZE).numbers(2)[:, 0]
    found = apply(operation, VIEWS)
    for view, turned, angle in zip(VIEWS, found, angles, strict=True):
        mode = InterpolationMode(interpolation)
        expected = tv.rotate(view, float(angle), mode, fill=list(fill) if any(fill) else None)
        wrong = (turned - expected).abs().amax(0) > LEVEL / 8
        if interpolation == "bilinear" and any(fill):  # torchvision blends the edge twice
            shown = tv.rotate(torch.ones_like(view), float(angle), mode)[0]
            wrong &= (shown < 1e-4) | (shown > 1 - 1e-4)
        assert wrong.float().mean() < (0.005 if interpolation == "nearest" else 1e-9)


def test_rotation_by_quarters_and_its_default_fill():
    quarter = apply(Rotation(degrees=(90, 90)), VIEWS)
    assert torch.allclose(quarter, torch.rot90(VIEWS, 1, (-2, -1)), atol=1e-4)
    corner = apply(Rotation(degrees=(45, 45)), VIEWS)[:, :, 0, 0]
    assert torch.allclose(corner, torch.tensor(draws_of(1).group.mean).expand(6, 3))


def test_a_fitted_rotation_has_no_empty_corner():
    ones = torch.ones(20, 3, SIZE, SIZE)
    black = {"degrees": (-180, 180), "fill": (0.0, 0.0, 0.0)}
    assert (apply(Rotation(**black), ones).amin((1, 2, 3)) == 0).float().mean() > 0.8
    assert apply(Rotation(fit=True, **black), ones)[..., 1:-1, 1:-1].min() > 0.99


def test_scale_enlarges():
    found = apply(Rotation(degrees=(0, 0), scale=(3, 3)), VIEWS)
    middle = VIEWS[..., SIZE // 3 : 2 * SIZE // 3, SIZE // 3 : 2 * SIZE // 3]
    assert torch.allclose(found[..., 1::3, 1::3], middle, atol=1e-3)


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterise(bits: int):
    found = apply(Posterise(bits=bits), VIEWS)
    assert torch.equal(levels(found), tv.posterize(levels(VIEWS), bits))


def test_sharpness():
    found = apply(Sharpness(), VIEWS)
    factors = draws_of(6, SIZE).uniform(low=0, high=2)
    for view, changed, factor in zip(VIEWS, found, factors, strict=True):
        expected = tv.adjust_sharpness(view, float(factor))
        assert torch.allclose(changed, expected, atol=1e-5)


def test_gamma():
    found = apply(Gamma(gamma=(0.3, 3)), VIEWS)
    powers = draws_of(6, SIZE).uniform(low=0.3, high=3)
    for view, changed, power in zip(VIEWS, found, powers, strict=True):
        assert torch.allclose(changed, tv.adjust_gamma(view, float(power)), atol=1e-5)


def test_auto_contrast_and_equalise():
    dull = VIEWS * 0.4 + 0.2
    dull[2, 1] = 0.25  # a flat channel
    assert torch.allclose(apply(AutoContrast(), dull), tv.autocontrast(dull), atol=1e-6)
    assert torch.equal(levels(apply(Equalise(), dull)), tv.equalize(levels(dull)))


def test_noise():
    grey = torch.full((200, 3, 16, 16), 0.5)
    added = apply(GaussianNoise(sigma=(0.05, 0.15), clip=False), grey) - grey
    expected = draws_of(200, 16).uniform(low=0.05, high=0.15)
    assert torch.allclose(added.flatten(1).std(1), expected, rtol=0.2)
    assert abs(added.mean()) < 2e-3
    assert apply(GaussianNoise(sigma=(1, 1)), grey).unique().aminmax() == (0, 1)


BUILT_IN = [
    RandomErasing(1.0, mode="pixel"),
    RandomErasing(0.5, mode="rand", count=(1, 3)),
    Rotation(),
    GaussianNoise(),
    Posterise(),
    Sharpness(),
    Gamma(),
    AutoContrast(),
    Equalise(),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("operation", BUILT_IN, ids=lambda operation: operation.kind)
def test_a_view_depends_on_itself_alone(operation: Operation, dtype: torch.dtype):
    check(operation, size=17, dtype=dtype)


@dataclass(frozen=True)
class Cheat(Operation):
    how: str = ""

    def __call__(self, views: torch.Tensor, draws: operations.Draws) -> Any:
        if self.how == "mixes":
            return views - views.mean(0)
        if self.how == "averages":
            return views - views.mean()
        if self.how == "forgets":
            return views + next(CALLS)
        if self.how == "draws":
            return views + draws.uniform(len(views))[:, -1, None, None, None]
        return {"none": None, "shape": views[:1], "dtype": views.double()}[self.how]


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("mixes", "Cheat gives a view a different result in another batch"),
        ("averages", "Cheat gives a view a different result in another batch"),
        ("draws", "Cheat gives a view a different result in another batch"),
        ("forgets", "Cheat gives different results for the same views"),
        ("none", "returned NoneType and must return a float32 tensor of shape"),
        ("shape", r"Cheat returned a float32 tensor of shape \(1, 3, 16, 16\) on cpu, and must"),
        ("dtype", "Cheat returned a float64 tensor of shape"),
    ],
)
def test_what_operations_must_not_do(how: str, complaint: str):
    with pytest.raises(MillError, match=complaint) as caught:
        check(Cheat(how=how), size=16)
    assert "\n" not in str(caught.value)


def test_an_operation_without_a_call_refers_to_the_guide():
    with pytest.raises(NotImplementedError, match=r"own-operation\.md"):
        check(replace(Operation(), p=0.5))
