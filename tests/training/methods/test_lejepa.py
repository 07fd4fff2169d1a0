"""LeJEPA's loss, written out from the released code, and the recipes that it takes."""

from __future__ import annotations

import pytest
import torch
from helpers_methods import Tiny, noise_groups

from patchmill.loaders import presets
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe
from patchmill.training.config import compose
from patchmill.training.config.settings import Model
from patchmill.training.methods import Progress
from patchmill.training.methods.lejepa import LeJEPA
from patchmill.training.objectives.sigreg import draw_directions, sigreg

GROUPS = {"global": (2, 8), "local": (3, 5)}


def make(**changes) -> LeJEPA:
    torch.manual_seed(0)
    settings = dict(hidden=[8], dim=4, directions=16) | changes
    return LeJEPA(LeJEPA.Settings(**settings), Tiny())


def embed(method: LeJEPA, batch) -> torch.Tensor:
    """z [views, images, width]: one pass per size, and one through the projector."""
    h = [method.backbone(batch.flat(name)) for name in batch.views]
    return method.projector(torch.cat(h)).view(-1, len(batch), 4)


def progress(step: int) -> Progress:
    return Progress(step, 10, 0.0, 1)


@pytest.mark.parametrize("weight", [0.0, 0.05, 1.0])
def test_the_loss_is_written_out(weight: float):
    method, batch = make(weight=weight), noise_groups(16, GROUPS)
    method.on_step_start(progress(3))
    losses = method(batch)
    z = embed(method, batch)
    assert z.shape == (5, 16, 4)
    centres = [(z[0, n] + z[1, n]) / 2 for n in range(16)]  # of the global views alone
    distances = [(centres[n] - z[v, n]).square().mean() for v in range(5) for n in range(16)]
    invariance = torch.stack(distances).mean()
    gaussian = sigreg(z, draw_directions(4, 16, 3, z.device))
    torch.testing.assert_close(losses.loss, weight * gaussian + (1 - weight) * invariance)
    torch.testing.assert_close(losses.metrics["invariance"], invariance.detach())
    torch.testing.assert_close(losses.metrics["sigreg"], gaussian.detach())


def test_local_views_do_not_move_the_centre():
    method = make(weight=0.0).eval()
    batch = noise_groups(16, GROUPS)
    before = embed(method, batch)[:2]
    batch.views["local"].mul_(5)
    z = embed(method, batch)
    torch.testing.assert_close(z[:2], before)
    torch.testing.assert_close(method(batch).loss, (z - before.mean(0)).square().mean())


def test_gradients_flow_through_the_centre():
    """There is no stop-gradient: for two global views, both halves of the distance count."""
    method, batch = make(weight=0.0), noise_groups(8, {"global": (2, 8)})
    method(batch).loss.backward()
    found = method.projector[-1].weight.grad.clone()
    method.zero_grad()
    z = embed(method, batch)
    ((z[0] - z[1]).square().mean() / 4).backward()
    torch.testing.assert_close(found, method.projector[-1].weight.grad)


def test_directions_are_fresh_in_each_step_and_come_back_with_it():
    method, batch = make(weight=1.0).eval(), noise_groups(16, GROUPS)
    losses = []
    for step in (4, 5, 4):
        torch.manual_seed(step)  # which the directions do not depend on
        method.on_step_start(progress(step))
        losses.append(method(batch).loss)
    assert torch.equal(losses[0], losses[2]) and not torch.equal(losses[0], losses[1])


def test_a_batch_in_low_precision_has_a_loss_in_float32():
    method, batch = make(), noise_groups(16, GROUPS)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(batch).loss
    assert loss.dtype == torch.float32 and loss.isfinite()


# ------------------------------------------------------------------------------------- bad input


def test_a_recipe_needs_global_views_and_two_in_all():
    large, small = presets.lejepa().views
    check = LeJEPA.check
    check(None, Recipe((large,), "fine"))
    check(None, presets.lejepa(global_crops=1, local_crops=1))
    with pytest.raises(MillError, match="tiny makes only local ones: start it with"):
        check(None, Recipe((small,), "tiny"))
    with pytest.raises(MillError, match="at least 2 views of an image, but lejepa makes 1"):
        check(None, presets.lejepa(global_crops=1, local_crops=0))
    with pytest.raises(MillError, match="at most 2 groups of views, but three makes 3"):
        check(None, Recipe((large, small, presets.eval().views[0]), "three"))


def test_one_number_is_no_embedding():
    for method in ("lejepa", "byol"):
        with pytest.raises(MillError, match=r"method\.dim.* of at least 2"):
            compose.compose([f"method={method}", "data=scenes", "method.dim=1"])


def test_views_must_be_whole_patches():
    tiny = Model("vit_tiny_patch16_224", depth=1)
    with pytest.raises(MillError, match=r"local views of 98 .* patches of 16: make .* of 96"):
        LeJEPA.make_backbone(None, tiny, presets.lejepa())
    backbone = LeJEPA.make_backbone(None, tiny, presets.lejepa(local_size=96, global_size=32))
    assert backbone(torch.zeros(1, 3, 96, 96)).shape == (1, 192)
