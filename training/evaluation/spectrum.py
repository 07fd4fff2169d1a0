"""Signs of collapse in features: RankMe (Garrido et al., arXiv 2210.02885) and spread."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from patchmill.training.methods.method import embedding_std

MOST_ROWS = 25_600  # the paper's
MOST_NUMBERS = 2**27  # 1 GiB in float64: fewer rows of features longer than 5,242
EPS = 1e-7  # the paper's, for float32 features


@torch.no_grad()
def rankme(rows: torch.Tensor) -> float:
    """Effective rank of features [N, d], at most min(N, d): exp of the entropy of their spectrum.

    The spectrum is the singular values over their sum, plus EPS. Rows are neither centred nor
    normalised. 0 for all-zero rows, NaN for rows that are not finite.
    """
    if not rows.isfinite().all():
        return float("nan")
    wide = rows.shape[1] > len(rows)
    rows = rows.double()  # rounding errors of its products are below EPS
    gram = rows @ rows.T if wide else rows.T @ rows
    sigma = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    if not sigma.sum():
        return 0.0
    p = sigma / sigma.sum() + EPS
    return float((-(p * p.log()).sum()).exp())


def spread(rows: torch.Tensor) -> float:
    """Spread of the directions of features [N, d]: 1 uniform, 0 all the same."""
    return float(embedding_std(normalize(rows.float(), dim=1)))


def subsample(rows: torch.Tensor) -> torch.Tensor:
    """Select at most MOST_ROWS rows, evenly spaced, as rows are often sorted by class.

    They hold at most MOST_NUMBERS numbers.
    """
    count = min(len(rows), MOST_ROWS, max(1, MOST_NUMBERS // rows.shape[1]))
    return rows[torch.arange(count, device=rows.device) * len(rows) // count]
