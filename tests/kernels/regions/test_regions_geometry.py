"""Shared boxes: both views show the same points of the image in the same cells."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from patchmill.kernels.regions import pool, shared
from patchmill.kernels.regions.geometry import Shared

SIZE_G, SIZE_V = 224, 96

crops = st.tuples(
    st.floats(0, 200), st.floats(0, 150), st.floats(80, 300), st.floats(80, 300),
    st.integers(0, 3), st.booleans(),
)  # fmt: skip


class Crop:
    """x1, y1, x2, y2 of the image, then mirrored, then turned."""

    def __init__(self, drawn: tuple[float, float, float, float, int, bool]) -> None:
        x, y, wide, high, self.turns, self.flip = drawn
        self.box = torch.tensor([x, y, x + wide, y + high], dtype=torch.float64)

    def source(self, points: torch.Tensor, size: int) -> torch.Tensor:
        """Map points of the view, [..., 2] x and y, to points of the image, inverting each step."""
        x, y = (points / size).unbind(-1)
        for _ in range(self.turns):  # undo a counter-clockwise turn
            x, y = 1 - y, x
        x = 1 - x if self.flip else x
        corner, extent = self.box[:2], self.box[2:] - self.box[:2]
        return corner + torch.stack([x, y], -1) * extent


def pair(g: Crop, v: Crop) -> Shared:
    views = [
        (it.box[None, None], torch.tensor([[it.turns]]), size)
        for it, size in ((g, SIZE_G), (v, SIZE_V))
    ]
    flips = [torch.tensor([[it.flip]]) for it in (g, v)]
    found = shared(*views[0], *views[1], *flips)
    return Shared(*(it[0, 0, 0] for it in found))


def carried(grid: torch.Tensor, found: Shared) -> torch.Tensor:
    """Convert g's orientation to v's; rows and columns come first."""
    grid = grid.flip(1) if found.mirrors else grid
    return torch.rot90(grid, int(found.turns), (0, 1))


def centres(box: torch.Tensor, size: int) -> torch.Tensor:
    """[size, size, 2]: the points that cells of a box sample, by rows."""
    step = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    y, x = torch.meshgrid(step, step, indexing="ij")
    return box[:2] + torch.stack([x, y], -1) * (box[2:] - box[:2])


def picture(points: torch.Tensor) -> torch.Tensor:
    x, y = points.unbind(-1)
    return torch.sin(x / 40) * torch.cos(y / 55) + 0.003 * x - torch.sin((x + 2 * y) / 90)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(crops, crops, st.sampled_from([4, 10]))
def test_cells_of_both_views_show_the_same_points(one: tuple, other: tuple, size: int):
    g, v = Crop(one), Crop(other)
    found = pair(g, v)
    in_g = picture(g.source(centres(found.in_g, size), SIZE_G))
    in_v = picture(v.source(centres(found.in_v, size), SIZE_V))
    assert (carried(in_g, found) - in_v).abs().max() <= 1e-5


@settings(max_examples=50, deadline=None, derandomize=True)
@given(crops, crops)
def test_pooled_maps_show_the_same_points(one: tuple, other: tuple):
    """From images to cells, for a plane, which interpolation between pixels preserves.

    Only the middle of each box, as pixels beyond the edge of a map repeat its edge.
    """
    g, v = Crop(one), Crop(other)
    found = pair(g, v)
    assume((found.in_v[2:] - found.in_v[:2]).min() >= 4)
    assume((found.in_g[2:] - found.in_g[:2]).min() >= 8)
    pooled = []
    for view, box, size, grid in ((g, found.in_g, SIZE_G, 56), (v, found.in_v, SIZE_V, 48)):
        whole = torch.tensor([0, 0, size, size], dtype=torch.float64)
        x, y = view.source(centres(whole, grid), size).unbind(-1)
        plane = (0.01 * x - 0.02 * y + 1)[None, None]
        middle = (box[:2] + box[2:]) / 2
        inner = middle.repeat(2) + (box - middle.repeat(2)) / 2
        turned = view is g
        pooled.append(
            pool(
                plane, (inner * grid / size)[None], torch.tensor([0]), 4,
                found.turns[None] if turned else None, found.mirrors[None] if turned else None,
            )[0, 0]
        )  # fmt: skip
    assert (pooled[0] - pooled[1]).abs().max() <= 1e-5


@pytest.mark.parametrize("flips", [(False, False), (True, True), (True, False), (False, True)])
@pytest.mark.parametrize("turns_v", range(4))
@pytest.mark.parametrize("turns_g", range(4))
def test_pixels_of_both_views_are_the_same(turns_g: int, turns_v: int, flips: tuple[bool, bool]):
    """Crops that are not resized: their shared pixels are bit-identical."""
    image = torch.arange(30 * 30).view(30, 30)
    boxes, turns = ((3, 5, 19, 21), (9, 2, 21, 14)), (turns_g, turns_v)
    seen = []
    for (x1, y1, x2, y2), turn, flip in zip(boxes, turns, flips, strict=True):
        crop = image[y1:y2, x1:x2]
        seen.append(torch.rot90(crop.flip(1) if flip else crop, turn, (0, 1)))
    g, v = (Crop((x1, y1, x2 - x1, y2 - y1, 0, False)) for x1, y1, x2, y2 in boxes)
    given = [
        (it.box[None, None].float(), torch.tensor([[turn]]), len(view))
        for it, turn, view in zip((g, v), turns, seen, strict=True)
    ]
    found = shared(*given[0], *given[1], *(torch.tensor([[flip]]) for flip in flips))
    found = Shared(*(it[0, 0, 0] for it in found))
    parts = []
    for view, box in zip(seen, (found.in_g, found.in_v), strict=True):
        x1, y1, x2, y2 = (int(it) for it in box.round())
        assert (x2 - x1) * (y2 - y1) == 10 * 9
        parts.append(view[y1:y2, x1:x2])
    assert torch.equal(carried(parts[0], found), parts[1])


def test_the_formulas_of_the_paper():
    box, size = torch.tensor([[[10.0, 20.0, 110.0, 80.0]]]), 100
    inner = torch.tensor([[[20.0, 32.0, 60.0, 74.0]]])
    x1, y1, x2, y2 = 10.0, 20.0, 50.0, 90.0
    turned = {
        0: (x1, y1, x2, y2), 1: (y1, size - x2, y2, size - x1),
        2: (size - x2, size - y2, size - x1, size - y1), 3: (size - y2, x1, size - y1, x2),
    }  # fmt: skip
    for turns, right in turned.items():
        found = shared(box, torch.tensor([[turns]]), size, inner, torch.tensor([[3]]), 96)
        assert found.in_g.flatten().tolist() == pytest.approx(right, abs=1e-4)
        assert found.turns.item() == (3 - turns) % 4
        assert not found.mirrors.item()


def test_every_pair_of_a_batch():
    random = torch.Generator().manual_seed(0)
    corner = torch.rand(3, 6, 2, generator=random) * 100
    boxes = torch.cat([corner, corner + 60 + 100 * torch.rand(3, 6, 2, generator=random)], 2)
    turns = torch.randint(4, (3, 6), generator=random)
    found = shared(boxes[:, :2], turns[:, :2], 224, boxes, turns, 96)
    assert found.in_g.shape == found.in_v.shape == (3, 2, 6, 4)
    for image, g, v in ((0, 0, 0), (1, 1, 5), (2, 0, 3)):
        at = slice(image, image + 1)
        one = shared(
            boxes[at, g : g + 1], turns[at, g : g + 1], 224,
            boxes[at, v : v + 1], turns[at, v : v + 1], 96,
        )  # fmt: skip
        for every, alone in zip(found, one, strict=True):
            assert torch.equal(every[image, g, v], alone[0, 0, 0])
    assert torch.allclose(found.in_g[:, 0, 0], torch.tensor([0.0, 0, 224, 224]), atol=1e-4)


def test_views_that_share_nothing():
    boxes = torch.tensor([[[0.0, 0, 50, 50], [60, 70, 90, 100]]])
    turns = torch.tensor([[1, 3]])
    found = shared(boxes[:, :1], turns[:, :1], 224, boxes[:, 1:], turns[:, 1:], 96)
    for box in (found.in_g, found.in_v):
        assert torch.equal(box[..., :2], box[..., 2:])
    pooled = pool(torch.ones(1, 1, 14, 14), found.in_g[0, 0] / 16, turns[0, :1] * 0, 3)
    assert pooled.abs().max() == 0


def test_compiles_without_graph_breaks():
    boxes = torch.tensor([[[0.0, 0, 50, 50], [10, 20, 90, 100]]])
    given = boxes, torch.tensor([[1, 3]]), 224, boxes, torch.tensor([[0, 2]]), 96
    compiled = torch.compile(shared, fullgraph=True, backend="aot_eager")
    for found, right in zip(compiled(*given), shared(*given), strict=True):
        assert torch.equal(found, right)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box_g": torch.zeros(2, 4)}, "box_g as"),
        ({"turns_v": torch.zeros(2, 2, dtype=torch.int64)}, "turns_v"),
        ({"turns_g": torch.zeros(2, 1)}, "integers"),
        ({"box_v": torch.zeros(2, 3, 4, dtype=torch.int64)}, "floating"),
        ({"flip_g": torch.zeros(2, 1)}, "bool"),
        ({"box_g": torch.zeros(3, 1, 4), "turns_g": torch.zeros(3, 1).long()}, "same images"),
    ],
)
def test_bad_input_raises_one_sentence(change: dict, message: str):
    given = {
        "box_g": torch.zeros(2, 1, 4), "turns_g": torch.zeros(2, 1).long(), "size_g": 224,
        "box_v": torch.zeros(2, 3, 4), "turns_v": torch.zeros(2, 3).long(), "size_v": 96,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message) as caught:
        shared(**(given | change))
    assert "\n" not in str(caught.value)


def test_turns_are_counter_clockwise():
    """A case checked by eye: a quarter turn moves the right edge of a view to its top."""
    right_edge = Crop((0.0, 0.0, 100.0, 100.0, 1, False)).source(torch.tensor([50.0, 0.0]), 100)
    assert right_edge.tolist() == [100, 50]
