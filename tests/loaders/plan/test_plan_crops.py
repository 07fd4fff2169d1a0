"""The crop laws against torchvision's own code."""

import numpy as np
import pytest
import torch
import torchvision.transforms.transforms as tv
from scipy import stats

from patchmill.loaders.plan import draw as plan
from patchmill.loaders.plan import philox
from patchmill.loaders.recipe import Centre, Crop, Recipe, Shift, Views, Window

LAWS = [
    Crop((0.08, 1.0)),
    Crop((0.4, 1.0)),
    Crop((0.05, 0.14)),
    Crop((0.25, 0.25), (1.0, 1.0)),
    Crop((0.5, 1.0), (0.2, 6.0)),
    Crop((0.9, 1.0), (2.0, 2.0)),
]
SHAPES = [(375, 500), (500, 33), (20, 1), (1, 20), (1, 1), (7, 5), (2592, 3888), (64, 640)]
SHAPES += [
    (5, 5),
    (7, 7),
]  # sides of quarters are 2.5 and 3.5, and halves round to even


def boxes_of(crop: Crop, shapes: np.ndarray, seed: int = 5, views: int = 1) -> np.ndarray:
    recipe = Recipe((Views("a", views, 32, crop),))
    rows = plan.draw(recipe, seed, 3, np.arange(len(shapes)), shapes).rows
    return np.stack([rows[f"box_{name}"] for name in "yxhw"], -1)


class FedTorch:
    """Stands in for torch inside torchvision's get_params; its random numbers are given to it."""

    tensor, log, exp = staticmethod(np.array), staticmethod(np.log), staticmethod(np.exp)

    def __init__(self, image: int, view: int, seed: int) -> None:
        words = [
            philox.block(*map(np.uint64, (image, 0, 3, view << 16 | op << 8, seed, 0)))
            for op in range(10)
        ]
        self.uniforms = iter([int(w) / 2**32 for block in words for w in block[:2]])
        self.words = words
        self.tries = 0

    def empty(self, _: int) -> "FedTorch":
        return self

    def uniform_(self, low: float, high: float) -> np.float64:
        self.tries += 0.5
        return np.float64(low + next(self.uniforms) * (high - low))

    def randint(self, low: int, high: int, size: tuple[int]) -> np.int64:
        words = self.words[int(self.tries) - 1]
        which, self.words[int(self.tries) - 1] = words[2], (*words[:2], words[3], words[2])
        return np.int64(int(which) * high >> 32)


@pytest.mark.parametrize("crop", LAWS, ids=str)
def test_crops_are_what_torchvision_makes_of_the_same_random_numbers(crop, monkeypatch):
    shapes = np.array(SHAPES * 4)
    boxes = boxes_of(crop, shapes, views=2)
    for image, (height, width) in enumerate(shapes):
        for view in range(2):
            monkeypatch.setattr(tv, "torch", FedTorch(image, view, 5))
            blank = torch.empty(1).expand(3, height, width)
            expected = tv.RandomResizedCrop.get_params(blank, crop.scale, crop.ratio)
            monkeypatch.undo()
            y, x, h, w = expected
            if min(h, w) == 0:  # torchvision may fall back to no pixels at all
                h, w = max(h, 1), max(w, 1)
                y, x = (height - h) // 2, (width - w) // 2
            assert tuple(boxes[image, view]) == (y, x, h, w)


@pytest.mark.parametrize("shape", [(375, 500), (120, 500), (32, 32)])
@pytest.mark.parametrize("crop", [LAWS[0], LAWS[2]], ids=str)
def test_crops_are_distributed_as_torchvision_s(crop, shape):
    n = 1500
    torch.manual_seed(0)
    blank = torch.empty(1).expand(3, *shape)
    draw = tv.RandomResizedCrop.get_params
    theirs = np.array([draw(blank, crop.scale, crop.ratio) for _ in range(n)])
    ours = boxes_of(crop, np.tile(shape, (n, 1)))[:, 0]
    for name, law in {
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: b[:, 3] / b[:, 2],
        "y": lambda b: (b[:, 0] + 0.5) / (shape[0] - b[:, 2] + 1),
        "x": lambda b: (b[:, 1] + 0.5) / (shape[1] - b[:, 3] + 1),
    }.items():
        assert stats.ks_2samp(law(ours), law(theirs)).pvalue > 0.001, name


def test_area_and_ratio_are_uniform_and_log_uniform():
    boxes = boxes_of(Crop((0.1, 0.3), (0.5, 2.0)), np.tile((8000, 8000), (4000, 1)))[:, 0]
    area = boxes[:, 2] * boxes[:, 3] / 8000**2
    ratio = np.log2(boxes[:, 3] / boxes[:, 2])
    assert stats.kstest(area, "uniform", (0.1, 0.2)).pvalue > 0.01
    assert stats.kstest(ratio, "uniform", (-1, 2)).pvalue > 0.01


def test_positions_are_uniform_over_all_that_fit():
    boxes = boxes_of(Crop((0.25, 0.25), (1.0, 1.0)), np.tile((10, 12), (8000, 1)))[:, 0]
    assert np.all(boxes[:, 2:] == 5)
    counts = np.histogram2d(boxes[:, 0], boxes[:, 1], bins=[np.arange(7), np.arange(9)])[0]
    assert counts.shape == (6, 8)
    assert stats.chisquare(counts.ravel()).pvalue > 0.01


@pytest.mark.parametrize(("scale", "side"), [(0.25, 16), (0.2, 14)])
def test_fixed_scale_patches_of_small_images_have_one_size(scale, side):
    boxes = boxes_of(Crop((scale, scale), (1.0, 1.0)), np.tile((32, 32), (10_000, 1)))[:, 0]
    assert np.all(boxes[:, 2:] == side)


def test_fallback_is_marked():
    recipe = Recipe((Views("a", 1, 32, Crop((0.9, 1.0), (1.0, 1.0))),))
    row = plan.draw(recipe, 0, 0, [0], [(100, 10)]).rows[0, 0]
    assert row["fallback"] == 1
    assert [row[f"box_{name}"] for name in "yxhw"] == [45, 0, 10, 10]
    row = plan.draw(recipe, 0, 0, [0], [(100, 100)]).rows[0, 0]
    assert row["fallback"] == 0


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (224, 224), (333, 224), (20, 1), (1, 1)])
@pytest.mark.parametrize(("size", "short_side"), [(224, 256), (223, 256), (32, 32)])
def test_centre_crops_are_torchvision_s(shape, size, short_side):
    recipe = Recipe((Views("a", 1, size, Centre(short_side), flip=0.0),))
    row = plan.draw(recipe, 0, 0, [0], [shape]).rows[0, 0]
    height, width = tv.F._compute_resized_output_size(shape, [short_side])
    assert (row["full_h"], row["full_w"]) == (height, width)
    lines = torch.arange(height)[None, :, None].expand(1, height, width)
    assert tv.F.center_crop(lines, size)[0, 0, 0] == row["win_y"]
    columns = torch.arange(width)[None, None, :].expand(1, height, width)
    assert tv.F.center_crop(columns, size)[0, 0, 0] == row["win_x"]
    assert [row[f"box_{name}"] for name in "yxhw"] == [0, 0, *shape]


def test_windows_are_uniform_over_the_resized_image():
    recipe = Recipe((Views("a", 1, 8, Window(12)),))
    rows = plan.draw(recipe, 0, 0, np.arange(6000), np.tile((60, 90), (6000, 1))).rows[:, 0]
    assert np.all((rows["full_h"] == 12) & (rows["full_w"] == 18))
    counts = np.histogram2d(rows["win_y"], rows["win_x"], bins=[np.arange(6), np.arange(12)])[0]
    assert counts.sum() == 6000
    assert stats.chisquare(counts.ravel()).pvalue > 0.01


def test_shifts_are_uniform_within_the_padding():
    recipe = Recipe((Views("a", 1, 32, Shift(4)),))
    rows = plan.draw(recipe, 0, 0, np.arange(8000), np.tile((40, 32), (8000, 1))).rows[:, 0]
    assert np.all((rows["full_h"] == 32) & (rows["full_w"] == 32))
    edges = np.arange(-4, 6)
    counts = np.histogram2d(rows["win_y"], rows["win_x"], bins=[edges, edges])[0]
    assert counts.sum() == 8000
    assert stats.chisquare(counts.ravel()).pvalue > 0.01
