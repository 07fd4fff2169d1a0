"""SIGReg against the formulas, written as loops over images, directions and knots."""

from __future__ import annotations

import itertools
import math

import helpers_ranks
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from patchmill.training.objectives.sigreg import draw_directions, epps_pulley, sigreg

CPU = torch.device("cpu")


def statistic(x: np.ndarray) -> float:
    """T of numbers x [N], integrated over all of [-3, 3] by the trapezoidal rule at 33 knots."""
    knots = [-3 + j * 3 / 16 for j in range(33)]
    heights = []
    for t in knots:
        real = sum(math.cos(t * value) for value in x) / len(x)
        imaginary = sum(math.sin(t * value) for value in x) / len(x)
        normal = math.exp(-(t**2) / 2)
        heights.append(normal * ((real - normal) ** 2 + imaginary**2))
    area = sum((a + b) / 2 * 3 / 16 for a, b in itertools.pairwise(heights))
    return len(x) * area


def embeddings(views: int, images: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, images, width, generator=generator, dtype=torch.float64)


def normal_cdf(x: torch.Tensor) -> torch.Tensor:
    return (1 + torch.erf(x / math.sqrt(2))) / 2


def test_the_statistic_is_the_integral_over_characteristic_functions():
    x = 1.5 * embeddings(3, 12, 5) + 0.3
    expected = [[statistic(x[v, :, m].numpy()) for m in range(5)] for v in range(3)]
    torch.testing.assert_close(epps_pulley(x), torch.tensor(expected, dtype=torch.float64))


def test_sigreg_is_the_mean_over_views_and_directions():
    """Views are not pooled, and the statistic does not grow with their number."""
    z, directions = embeddings(4, 9, 6), embeddings(1, 6, 7, seed=1)[0]
    directions /= directions.norm(dim=0)
    each = [statistic((z[v] @ directions[:, m]).numpy()) for v in range(4) for m in range(7)]
    assert sigreg(z, directions).item() == pytest.approx(np.mean(each), rel=1e-12)
    torch.testing.assert_close(sigreg(z.repeat(3, 1, 1), directions), sigreg(z, directions))


def test_gradients():
    z, directions = embeddings(2, 5, 3).requires_grad_(), draw_directions(3, 4, 0, CPU).double()
    assert torch.autograd.gradcheck(lambda z: sigreg(z, directions), z)


def test_normal_samples_are_near_the_minimum_and_others_far_from_it():
    """The mean of N (cos + i sin - phi)^2 over normal samples is 1 - phi^2, whatever N is."""
    width = 8
    normal = embeddings(20, 400, width)
    uniform = normal_cdf(normal) * 2 * math.sqrt(3) - math.sqrt(3)  # of variance 1
    others = {
        "collapsed": torch.zeros_like(normal),
        "shifted": normal + 0.5,
        "narrow": 0.7 * normal,
        "wide": 1.5 * normal,
        "flat": normal * torch.tensor([1.0] * 4 + [0.1] * 4, dtype=torch.float64),
    }
    directions = draw_directions(width, 64, 0, CPU).double()
    least = sigreg(normal, directions).item()
    t = torch.arange(-3.0, 3.01, 3 / 16, dtype=torch.float64)
    average = torch.trapezoid((1 - (-t.square()).exp()) * (-t.square() / 2).exp(), t)
    assert least == pytest.approx(average.item(), rel=0.2)
    assert all(sigreg(z, directions) > 10 * least for z in others.values())
    # Sums of several uniform coordinates look normal; single coordinates do not.
    axes = torch.eye(width, dtype=torch.float64)
    assert sigreg(uniform, axes) > 5 * sigreg(normal, axes)


def test_descent_makes_a_collapsed_batch_normal():
    z = (0.01 * embeddings(1, 128, 4)).requires_grad_()
    optimiser = torch.optim.Adam([z], lr=0.05)
    for step in range(150):
        optimiser.zero_grad()
        sigreg(z, draw_directions(4, 32, step, CPU)).backward()
        optimiser.step()
    assert z.mean().abs() < 0.1
    torch.testing.assert_close(
        torch.cov(z[0].T.detach()), torch.eye(4, dtype=torch.float64), atol=0.2, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    z, directions = embeddings(2, 8, 4).to(dtype), draw_directions(4, 8, 0, CPU)
    expected = sigreg(z.float(), directions)
    with torch.autocast("cpu", torch.bfloat16):
        found = sigreg(z, directions)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_the_backward_pass_keeps_no_sines_and_cosines():
    """Those of 17 knots would be 34 times the size of the projections."""
    z, directions = embeddings(2, 64, 8).requires_grad_(), draw_directions(8, 128, 0, CPU).double()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        sigreg(z, directions).backward()
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in saved}
    assert sum(storages.values()) < 3 * 8 * (2 * 64 * 128)


def test_directions_are_unit_columns_that_depend_only_on_the_seed():
    first = draw_directions(6, 9, 3, CPU)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(9))
    torch.manual_seed(5)
    assert torch.equal(first, draw_directions(6, 9, 3, CPU))
    assert not torch.allclose(first, draw_directions(6, 9, 4, CPU), atol=0.1)
    torch.testing.assert_close(first, normalize(first, dim=0))


def test_two_ranks_have_the_statistic_and_gradient_of_one_process(tmp_path):
    helpers_ranks.run_well(
        """
        from patchmill.training.objectives.sigreg import draw_directions, sigreg

        z = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        z.requires_grad_()
        whole = sigreg(z, draw_directions(4, 16, 7, torch.device("cpu")))
        whole.backward()
        world = distributed.connect("cpu")
        torch.manual_seed(world.rank)  # ranks' generators differ, their directions do not
        rows = slice(4 * world.rank, 4 * world.rank + 4)
        mine = z.detach()[:, rows].requires_grad_()
        found = sigreg(mine, draw_directions(4, 16, 7, torch.device("cpu")))
        found.backward()
        torch.testing.assert_close(found, whole)
        # DDP takes the mean over ranks of what each of two equal losses gives.
        torch.testing.assert_close(mine.grad / 2, z.grad[:, rows])
        distributed.close()
        """,
        tmp_path,
    )
