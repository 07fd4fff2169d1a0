"""The reference against the papers' formulas in loops, and against torch.nn.functional."""

from __future__ import annotations

import math

import pytest
import torch
from helpers_contrast import unit
from torch.nn.functional import cross_entropy

from patchmill.kernels.contrast import reference


def test_info_nce_by_moco_formula():
    """MoCo's repository: the positive's logit first, label 0."""
    q, p, k = unit(7, 5), unit(7, 5, seed=1), unit(11, 5)
    logits = torch.cat([torch.einsum("nc,nc->n", q, p)[:, None], q @ k.T], dim=1) / 0.07
    expected = cross_entropy(logits, torch.zeros(7, dtype=torch.long))
    torch.testing.assert_close(reference.info_nce(q, p, k, 0.07), expected)


def test_other_positives_as_keys():
    q, p, k = unit(7, 5), unit(7, 5, seed=1), unit(11, 5)
    expected = cross_entropy(q @ torch.cat([p, k]).T / 0.2, torch.arange(7))
    torch.testing.assert_close(reference.info_nce(q, p, k, 0.2, in_batch=True), expected)


def test_nt_xent_by_simclr_formula():
    """SimCLR's pseudo-code: l(i, j) over 2 N rows, each with the other one of its pair."""
    z = unit(2, 6, 5).double()
    rows = [*z[0].tolist(), *z[1].tolist()]
    total = 0.0
    for i in range(12):
        j = (i + 6) % 12
        every = [math.exp(dot(rows[i], rows[k]) / 0.1) for k in range(12) if k != i]
        total -= math.log(math.exp(dot(rows[i], rows[j]) / 0.1) / sum(every))
    assert float(reference.nt_xent(z, 0.1)) == pytest.approx(total / 12, rel=1e-12)


def test_nt_xent_of_more_views_by_supcon_formula():
    """SupCon's L_out (mean over positives outside the logarithm), one class per image."""
    z = unit(3, 4, 5).double()
    rows, classes = z.flatten(0, 1), torch.arange(12) % 4
    total = 0.0
    for i in range(12):
        others = [k for k in range(12) if k != i]
        below = sum(math.exp(float(rows[i] @ rows[k]) / 0.5) for k in others)
        good = [k for k in others if classes[k] == classes[i]]
        ratios = [math.log(math.exp(float(rows[i] @ rows[p]) / 0.5) / below) for p in good]
        total -= sum(ratios) / len(good)
    assert float(reference.nt_xent(z, 0.5)) == pytest.approx(total / 12, rel=1e-12)


def test_ranks_add_up_to_one_process():
    """Mean loss and summed gradients over processes equal those of one process."""
    z = unit(2, 9, 4).double().requires_grad_()
    whole = reference.nt_xent(z, 0.2)
    parts = [reference.nt_xent(z[:, at : at + 3], 0.2, z, at) for at in (0, 3, 6)]
    mean = sum(parts) / 3
    torch.testing.assert_close(mean, whole)
    ours, theirs = (torch.autograd.grad(it, z, retain_graph=True)[0] for it in (mean, whole))
    torch.testing.assert_close(ours, theirs)


def test_gradients():
    q, p, k = (unit(*s).double().requires_grad_() for s in ((4, 3), (4, 3), (6, 3)))
    assert torch.autograd.gradcheck(lambda *a: reference.info_nce(*a, 0.3), (q, p, k))
    assert torch.autograd.gradcheck(lambda *a: reference.info_nce(*a, 0.3, True), (q, p, k))
    z, every = unit(3, 2, 3).double().requires_grad_(), unit(3, 4, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: reference.nt_xent(a, 0.3), (z,))
    assert torch.autograd.gradcheck(lambda a, b: reference.nt_xent(a, 0.3, b, 1), (z, every))


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
