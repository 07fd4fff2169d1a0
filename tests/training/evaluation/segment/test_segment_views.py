"""Training views: image and mask stay together; sizes, scales and crops are mmsegmentation's."""

from __future__ import annotations

import helpers_segment
import numpy as np
import pytest
import torch
from helpers_segment import IGNORED, colours_match, sample
from torchvision import tv_tensors

from patchmill.training.evaluation.segment import views
from patchmill.training.evaluation.segment.batches import training_batches
from patchmill.training.evaluation.segment.labelled import Sample


@pytest.mark.parametrize("shape", [(32, 32), (32, 64), (96, 48)])
@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
def test_every_pixel_keeps_its_label(shape, size):
    """Away from the edges of one colour, a pixel has the colour of its label after all draws."""
    for seed in range(12):
        image = sample(*shape, seed=seed, cell=16)
        view = views.training_view(image, size, False, np.random.default_rng(seed))
        assert view.image.shape == (3, *size) and view.mask.shape == size
        assert view.image.dtype == view.mask.dtype == torch.uint8
        inside = _away_from_edges(view.mask.as_subclass(torch.Tensor))
        assert inside.any() and colours_match(view, 2)[inside].all()


def _away_from_edges(mask: torch.Tensor, reach: int = 3) -> torch.Tensor:
    """Pixels in whose neighbourhood all have one label: 1.5 pixels of an image enlarged twice."""
    padded = mask.float()[None, None]
    pool = torch.nn.functional.max_pool2d
    side = 2 * reach + 1
    same = pool(padded, side, 1) == -pool(-padded, side, 1)
    return torch.nn.functional.pad(same[0, 0], [reach] * 4)  # what lies beyond a crop is not seen


def test_flips_turn_image_and_mask_alike():
    columns = torch.arange(64).repeat(64, 1).to(torch.uint8)
    both = Sample(tv_tensors.Image(columns.repeat(3, 1, 1)), tv_tensors.Mask(columns.clone()))
    directions = set()
    for seed in range(8):
        image, mask = views.training_view(both, (16, 16), False, np.random.default_rng(seed))
        assert ((image[0].int() - mask.int()).abs() <= 3)[mask != IGNORED].all()
        row = mask[0][mask[0] != IGNORED].int()
        directions.add(bool(row[0] < row[-1]))
    assert directions == {True, False}


def test_scales_are_those_of_the_short_side():
    """RandomResize of (2048, 512) with ratios 0.5 to 2, and mmcv's rounding."""
    for shape, scale, expected in (
        ((480, 640), 1.0, (512, 683)),
        ((480, 640), 0.5, (256, 341)),
        ((640, 480), 2.0, (1365, 1024)),
        ((100, 1000), 1.0, (205, 2048)),  # the long side limits it
    ):
        assert views._scaled(shape, (512, 512), scale) == expected


def test_the_short_side_of_a_whole_view_is_the_size():
    whole = views.whole_view(sample(40, 80, seed=0), (20, 30))
    assert whole.image.shape == (3, 20, 40) and whole.mask.shape == (20, 40)


def test_crops_that_one_class_fills_are_redrawn():
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[:, 48:] = 1
    both = Sample(tv_tensors.Image(mask.repeat(3, 1, 1)), tv_tensors.Mask(mask))
    varied = 0
    for seed in range(60):
        cut = views._crop(both, (32, 32), np.random.default_rng(seed)).mask
        varied += int(views._is_varied(cut))
    assert varied > 50  # without new draws: fewer than half
    ignored = torch.full((8, 8), IGNORED, dtype=torch.uint8)
    assert not views._is_varied(ignored) and not views._is_varied(torch.zeros_like(ignored))
    ignored[0, :2], ignored[1, :2] = 0, 1
    assert views._is_varied(ignored)  # half and half of what has a label


def test_what_lies_outside_the_image_is_ignored():
    view = views._crop(sample(16, 16, seed=0), (24, 20), np.random.default_rng(0))
    assert (view.mask[16:] == IGNORED).all() and (view.mask[:, 16:] == IGNORED).all()
    assert colours_match(view).all()


def test_distortion_only_changes_colours_and_within_bounds():
    grey = tv_tensors.Image(torch.full((3, 4, 4), 128, dtype=torch.uint8))
    means = [
        views.distort(grey, np.random.default_rng(seed)).float().mean().item() for seed in range(80)
    ]
    assert 0.5 * (128 - 32) - 1 <= min(means) < 100 and 150 < max(means) <= 1.5 * (128 + 32) + 1
    assert sum(abs(mean - 128) < 0.5 for mean in means) in range(10, 35)  # a quarter as they were


def test_batches_are_the_same_for_a_seed_and_pass_over_all_images():
    data, budget = helpers_segment.Coloured(5), helpers_segment.budget(iterations=5)
    first, second, other = (
        list(training_batches(data, budget, seed, threads))
        for seed, threads in ((1, 1), (1, 3), (2, 1))
    )
    assert len(first) == 5 and first[0].images.shape == (2, 3, 32, 32)
    for one, same in zip(first, second, strict=True):
        assert torch.equal(one.images, same.images) and torch.equal(one.masks, same.masks)
    assert not all(torch.equal(one.masks, two.masks) for one, two in zip(first, other, strict=True))

    class Indices(helpers_segment.Coloured):
        def read(self, index):
            seen.append(index)
            return super().read(index)

    seen: list[int] = []
    list(training_batches(Indices(5), budget, 1, 1))
    assert sorted(seen[:5]) == sorted(seen[5:]) == list(range(5)) and seen[:5] != seen[5:]


def test_padding_is_below_and_on_the_right():
    x = torch.ones(1, 3, 5, 8)
    padded = views.pad_to_multiple(x, 4)
    assert padded.shape == (1, 3, 8, 8) and padded.sum() == x.sum()
    assert torch.equal(padded[..., :5, :], x)
