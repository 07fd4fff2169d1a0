"""SIGReg of LeJEPA: sketched isotropic Gaussian regularisation by the Epps-Pulley statistic."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from patchmill.kernels.common.upload import upload
from patchmill.training.ranks import distributed

KNOTS, LAST_KNOT = 17, 3.0


def sigreg(z: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Mean Epps-Pulley statistic of the projections of z [V, B, K] on the unit columns [K, M].

    Each view has its own statistics, over all ranks' images. Computed in float32 regardless of
    autocast; float64 stays float64.
    """
    dtype = torch.promote_types(z.dtype, torch.float32)
    with torch.autocast(z.device.type, enabled=False):
        return epps_pulley(z.to(dtype) @ directions.to(dtype)).mean()


def epps_pulley(x: torch.Tensor) -> torch.Tensor:
    """Distance of the columns of x [V, B, M] from a standard normal distribution: [V, M].

    With N images on all ranks and phi(t) = exp(-t^2 / 2), the normal characteristic function,
    N sum_j w_j [(mean_n cos(t_j x_n) - phi(t_j))^2 + (mean_n sin(t_j x_n))^2]
    integrates the squared difference of characteristic functions, weighted by phi, from -3 to 3: by
    symmetry, twice the trapezoidal rule with 17 knots from 0 to 3.
    """
    t = torch.linspace(0, LAST_KNOT, KNOTS, dtype=x.dtype, device=x.device)[:, None, None]
    phi = torch.exp(-t.square() / 2)
    weights = 2 * LAST_KNOT / (KNOTS - 1) * phi
    for end in (0, -1):  # not one list: torch copies lists, and waits for the copy
        weights[end] /= 2
    # [V, B, M] of one knot at a time: the backward pass recomputes its sines and cosines.
    sums = [checkpoint(_sums, x, knot, use_reentrant=False, preserve_rng_state=False) for knot in t]
    images = x.shape[1] * distributed.current().size
    cos, sin = (distributed.all_reduce(torch.stack(sums)) / images).unbind(1)
    return images * (weights * ((cos - phi).square() + sin.square())).sum(0)


def _sums(x: torch.Tensor, knot: torch.Tensor) -> torch.Tensor:
    """Sums over images of cos(t x) and sin(t x), [2, V, M], for x [V, B, M] and a knot t."""
    angles = knot * x
    return torch.stack([angles.cos().sum(1), angles.sin().sum(1)])


def draw_directions(width: int, count: int, seed: int, device: torch.device) -> torch.Tensor:
    """Draw random unit columns [width, count], equal on all ranks and devices for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return upload(normalize(torch.randn(width, count, generator=generator), dim=0), device)
