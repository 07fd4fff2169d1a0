"""Objectives against the official programs' formulas, on fixed tensors."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, mse_loss, normalize, relu

from patchmill.training.objectives.byol import byol
from patchmill.training.objectives.nt_xent import nt_xent
from patchmill.training.objectives.queue import Queue
from patchmill.training.objectives.tcr import agreement, coding_rate
from patchmill.training.objectives.vicreg import vicreg


def embeddings(views: int, images: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, images, width, generator=generator)


def official_vicreg(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """VICReg.forward of facebookresearch/vicreg, main_vicreg.py."""
    repr_loss = mse_loss(x, y)
    batch, features = x.shape
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    std_x, std_y = torch.sqrt(x.var(dim=0) + 0.0001), torch.sqrt(y.var(dim=0) + 0.0001)
    std_loss = torch.mean(relu(1 - std_x)) / 2 + torch.mean(relu(1 - std_y)) / 2
    cov_x, cov_y = (x.T @ x) / (batch - 1), (y.T @ y) / (batch - 1)

    def off_diagonal(matrix: torch.Tensor) -> torch.Tensor:
        return matrix.flatten()[:-1].view(features - 1, features + 1)[:, 1:].flatten()

    cov_loss = off_diagonal(cov_x).pow(2).sum().div(features)
    cov_loss = cov_loss + off_diagonal(cov_y).pow(2).sum().div(features)
    return repr_loss, std_loss, cov_loss


def test_vicreg_of_two_views_is_the_official_one():
    z = embeddings(2, 16, 5) * 0.7
    for mine, theirs in zip(vicreg(z), official_vicreg(*z), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)


def test_vicreg_of_more_views_is_the_mean_over_their_pairs():
    z = embeddings(4, 16, 5) * 0.7
    pairs = [official_vicreg(z[i], z[j]) for i in range(4) for j in range(i)]
    for mine, theirs in zip(vicreg(z), torch.tensor(pairs).mean(0), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("images, width", [(16, 5), (6, 30)])
def test_the_coding_rate_is_nmces(images, width):
    """compute_discrimn_loss of MaximalCodingRate, per view."""
    z = normalize(embeddings(3, images, width), dim=-1)
    expected = 0.0
    for view in z:
        w = view.T
        inside = torch.eye(width) + width / (images * 0.2) * w @ w.T
        expected += torch.logdet(inside) / 2 / 3
    torch.testing.assert_close(coding_rate(z, 0.2), expected, rtol=1e-5, atol=1e-5)


def test_agreement_is_the_mean_cosine_of_two_views():
    z = normalize(embeddings(2, 16, 5), dim=-1)
    torch.testing.assert_close(agreement(z), cosine_similarity(z[0], z[1]).mean())
    z = normalize(embeddings(4, 16, 5), dim=-1)
    pairs = [cosine_similarity(z[i], z[j]).mean() for i in range(4) for j in range(i)]
    torch.testing.assert_close(agreement(z), torch.stack(pairs).mean())


def test_nt_xent_is_simclrs():
    z, tau = normalize(embeddings(2, 7, 5), dim=-1), 0.3
    rows = z.flatten(0, 1)
    logits = rows @ rows.T / tau
    logits.fill_diagonal_(-math.inf)
    partners = torch.cat([torch.arange(7, 14), torch.arange(7)])
    torch.testing.assert_close(nt_xent(z, tau), cross_entropy(logits, partners))


def test_byol_is_the_mean_over_ordered_pairs():
    predicted, taught = embeddings(3, 9, 5), embeddings(3, 9, 5, seed=1).requires_grad_()
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    each = [2 - 2 * cosine_similarity(predicted[i], taught[j]).mean() for i, j in pairs]
    found = byol(predicted.requires_grad_(), taught)
    torch.testing.assert_close(found, torch.stack(each).mean())
    found.backward()
    assert taught.grad is None


def test_the_queue_holds_the_last_keys_in_order():
    queue = Queue(12, 3)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(12))
    keys = torch.arange(20 * 3.0).view(20, 3)
    full = []
    for batch in keys.split(4):
        queue.push(batch)
        full.append(bool(queue.is_full))
    # 20 keys of 12 places: the oldest that are left, 8 to 11, lie behind the newest.
    assert torch.equal(queue.keys, torch.cat([keys[12:16], keys[16:20], keys[8:12]]))
    assert full == [False, False, True, True, True]
