"""RandAugment against torchvision's, and its magnitudes."""

from __future__ import annotations

import pytest
import torch
from helpers_operations import apply, draws_of, photo_like
from torchvision.transforms import v2

from patchmill.loaders.operations import RandAugment, check
from patchmill.loaders.operations.rand_augment import CHANGES

SIZE = 32


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize(("layers", "magnitude"), [(1, 20), (2, 9), (3, 30)])
def test_views_are_torchvisions_for_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, layers: int, magnitude: int, interpolation: str
):
    fill = (0.2, 0.4, 0.6)
    operation = RandAugment(
        layers=layers, magnitude=magnitude, interpolation=interpolation, fill=fill
    )
    mode = v2.InterpolationMode(interpolation)
    theirs = v2.RandAugment(layers, magnitude, interpolation=mode, fill=[51, 102, 153])
    views = photo_like(60, SIZE)
    ours = apply(operation, views)
    numbers = draws_of(60, SIZE).numbers(3 * layers).reshape(60, layers, 3)
    seen = set()
    for view, changed, rows in zip(views, ours, numbers, strict=True):
        which = [int(row[0] * len(CHANGES)) for row in rows]
        signed = [float(row[1]) for row, i in zip(rows, which, strict=True) if 1 <= i <= 9]
        seen, which_drawn = seen | set(which), list(which)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", lambda *size, left=which: torch.tensor(left.pop(0)))
            patch.setattr(torch, "rand", lambda *size, left=signed: torch.tensor(left.pop(0)))
            expected = theirs((view * 255).round().byte())
            assert not which and not signed
        # torchvision's magnitudes are float32, and its functions truncate.
        error = ((changed * 255).round() - expected.float()).abs()
        assert (error > 1).float().mean() < 0.03 and error.mean() < 0.5, which_drawn
    assert seen == set(range(14))


def test_deviating_magnitudes_stay_in_range():
    operation = RandAugment(magnitude=27, deviation=1.5)
    found = [operation._magnitude(i / 1000) for i in range(1001)]
    assert found == sorted(found) and max(found) == 30 and 22 < found[1] < 23
    assert found[500] == pytest.approx(27)
    assert RandAugment()._magnitude(0.9) == 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_a_view_depends_on_itself_alone(dtype: torch.dtype):
    check(RandAugment(deviation=3.0), dtype=dtype)
