"""Networks and forward passes of SimCLR and VICReg, and where batch norms begin with zeros."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers_methods import Tiny, noise

from patchmill.training.config import compose
from patchmill.training.evaluation import trained_run
from patchmill.training.methods.simclr import SimCLR
from patchmill.training.methods.vicreg import VICReg
from patchmill.training.ranks import distributed
from patchmill.training.runtime import setup


def batch_normed(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor | float = 0.0):
    centred = x - x.mean(0)
    return centred / (centred.square().mean(0) + 1e-5).sqrt() * scale + shift


def test_simclrs_head_ends_in_a_batch_norm():
    """projection_head of google-research/simclr, model_util.py: the last norm does not shift."""
    method = SimCLR(SimCLR.Settings(hidden=5, dim=4), Tiny())
    first, norm, _, second, last = method.projector
    with torch.no_grad():
        for param in (norm.weight, norm.bias, last.weight):
            param.uniform_(0.5, 2.0)
    h = torch.randn(12, 6)
    hidden = batch_normed(h @ first.weight.T + first.bias, norm.weight, norm.bias).relu()
    expected = batch_normed(hidden @ second.weight.T, last.weight)
    torch.testing.assert_close(method.projector(h), expected, rtol=1e-4, atol=1e-5)
    trained = {name for name, param in method.named_parameters() if param.requires_grad}
    assert "projector.4.weight" in trained and "projector.4.bias" not in trained


def test_simclrs_head_for_cifar_has_no_batch_norm():
    """solo-learn's, solo/methods/simclr.py."""
    method = SimCLR(SimCLR.Settings(hidden=5, dim=4, norm=False), Tiny())
    assert [type(layer).__name__ for layer in method.projector] == ["Linear", "ReLU", "Linear"]


def test_vicreg_normalises_each_view_by_itself():
    """main_vicreg.py:195-196, and the loss written out; the views have unlike distributions."""
    method = VICReg(VICReg.Settings(expander=[8, 8]), Tiny())
    official = copy.deepcopy(method)
    batch = noise(16)
    batch.views["views"][:, 1].mul_(3).add_(2)
    x = official.projector(official.backbone(batch.views["views"][:, 0]))
    y = official.projector(official.backbone(batch.views["views"][:, 1]))
    repr_loss = (x - y).square().mean()
    centred = [view - view.mean(0) for view in (x, y)]
    std_loss = sum((1 - (z.var(0) + 1e-4).sqrt()).relu().mean() / 2 for z in centred)
    covs = [z.T @ z / 15 for z in centred]
    cov_loss = sum((cov - cov.diag().diag()).square().sum() / len(cov) for cov in covs)
    found = method(batch).loss
    torch.testing.assert_close(found, 25 * repr_loss + 25 * std_loss + cov_loss)
    for mine, theirs in zip(method.buffers(), official.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)
    together = official.projector(official.backbone(batch.flat("views")))
    assert not torch.allclose(together[:16], x, atol=0.1)


@pytest.mark.parametrize(
    ("overrides", "zeros"),
    [
        ("method=moco", False),
        ("method=dilo", False),
        ("method=emp_ssl", False),
        ("method=tcr", False),
        ("method=supervised", False),
        ("method=vicreg", True),
        ("method=simclr", True),
        ("method=bagssl method.objective=vicreg", True),
        ("method=bagssl method.objective=tcr", False),
    ],
)
def test_blocks_begin_as_the_identity_where_the_released_ones_do(overrides, zeros):
    """Both that build networks ask the method: training, and the evaluation of untrained ones."""
    model = ("model=resnet10", "data.train=scenes(count=128, size=64)")
    config = compose.compose([*overrides.split(), *model])
    world = distributed.World()
    for method in (setup._build_method(config, world), trained_run.untrained(config, world)):
        norms = [
            param for name, param in method.backbone.named_parameters() if "bn2.weight" in name
        ]
        assert len(norms) == 4
        assert all((weight == (0 if zeros else 1)).all() for weight in norms)
