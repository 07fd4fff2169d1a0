"""Methods against their papers' code where it exists, and which parameters they train."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers_methods import NOW, SMALL, Tiny, example, make, noise, step
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from patchmill.kernels.views.decisions import ON_GREY, ON_IMAGE
from patchmill.loaders import presets
from patchmill.loaders.common.errors import MillError
from patchmill.training import methods
from patchmill.training.config.settings import Model
from patchmill.training.methods import METHODS, Progress
from patchmill.training.methods.dilo import DiLo
from patchmill.training.methods.emp_ssl import EMPSSL
from patchmill.training.methods.moco import MoCo
from patchmill.training.nets import norms


@pytest.mark.parametrize("name", METHODS)
def test_everything_but_teachers_is_trained_and_the_loss_falls(name):
    method = make(name)
    batch = example(name)
    losses = []
    for _ in range(12):
        method.on_step_start(NOW)
        losses.append(step(method, batch, lr=0.02))
        method.after_update(NOW)
    trained = {name for name, param in method.named_parameters() if param.requires_grad}
    assert trained == {name for name, param in method.named_parameters() if param.grad is not None}
    assert not any("follower" in name or "teacher" in name for name in trained)
    assert losses[0].dtype == torch.float32 and losses[0].ndim == 0
    assert losses[-1] < losses[3]  # when the queues are full
    assert method.backbone(batch.crops()[0]).shape == (16, method.backbone.num_features)


@pytest.mark.parametrize("objective", ["tcr", "vicreg", "simclr", "byol"])
@pytest.mark.parametrize("patches", [2, 5])
def test_bagssl_takes_any_objective_and_number_of_patches(objective, patches):
    method = make("bagssl", objective=objective)
    method.on_step_start(NOW)
    losses = method(noise(16, views=patches))
    losses.loss.backward()
    assert losses.loss.isfinite() and 0 < losses.metrics["spread"] < 2
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


# ------------------------------------------------------------------------------------------- MoCo


def official_moco(method: MoCo, batch, queue: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """MoCo.forward of facebookresearch/moco, moco/builder.py, without its shuffling."""
    im_q, im_k = batch.crops()
    q = normalize(method.projector(method.backbone(im_q)), dim=1)
    with torch.no_grad():
        k = normalize(method.follower(im_k), dim=1)
    l_pos = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
    l_neg = torch.einsum("nc,ck->nk", [q, queue.T])
    logits = torch.cat([l_pos, l_neg], dim=1) / method.settings.temperature
    return cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)), k


def test_moco_is_the_official_program():
    method = make("moco", shuffle_bn=False)
    official = copy.deepcopy(method)
    queue = method.queue.keys.clone()
    for number in range(6):
        batch = noise(16, seed=number)
        for one in (method, official):
            one.on_step_start(NOW)
        expected, keys = official_moco(official, batch, queue)
        official.zero_grad()
        expected.backward()
        losses = method(batch)
        method.zero_grad()
        losses.loss.backward()
        torch.testing.assert_close(losses.loss, expected)
        for mine, theirs in zip(method.parameters(), official.parameters(), strict=True):
            if mine.requires_grad:
                torch.testing.assert_close(mine.grad, theirs.grad)
        start = number * 16 % 32
        queue[start : start + 16] = keys
        torch.testing.assert_close(method.queue.keys, queue)


def test_the_momentum_encoder_is_updated_before_it_makes_keys():
    method = make("moco", momentum=0.75)
    student = nn.Sequential(method.backbone, method.projector)
    start = [param.detach().clone() for param in student.parameters()]
    method.on_step_start(NOW)  # the copy follows itself
    for mine, theirs in zip(method.follower.parameters(), start, strict=True):
        torch.testing.assert_close(mine, theirs)
    step(method, noise(16))
    moved = [param.detach().clone() for param in student.parameters()]
    method.on_step_start(NOW)
    for mine, old, new in zip(method.follower.parameters(), start, moved, strict=True):
        torch.testing.assert_close(mine, 0.75 * old + 0.25 * new)


def test_the_state_dict_holds_queue_and_teacher():
    method, other = make("moco"), make("moco", seed=1)
    step(method, noise(16))
    method.on_step_start(NOW)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.queue.keys, method.queue.keys) and other.queue.place == 16
    assert torch.equal(method(noise(16)).loss, other(noise(16)).loss)


def test_keys_are_normalised_with_other_neighbours_than_their_queries():
    """With split batch norm: same weights and views, other neighbours, keys in their order."""
    method = make("moco", split_bn=4, momentum=1.0)
    batch = noise(16)
    alike = replace(batch, views={"views": batch.views["views"][:, [0, 0]]})
    view = alike.crops()[0]
    queries, keys = method._query(view), method._key(view)
    assert not torch.allclose(queries, keys, atol=1e-3)
    torch.testing.assert_close(method.eval()._query(view), method._key(view), atol=0.1, rtol=0)


def test_symmetric_is_the_sum_of_both_ways_against_one_queue():
    both = make("moco", symmetric=True, shuffle_bn=False).eval()
    one = make("moco", shuffle_bn=False).eval()
    batch = noise(8)
    swapped = replace(batch, views={"views": batch.views["views"].flip(1)})
    negatives = one.queue.keys.clone()
    first = one(batch).loss
    one.queue.keys.copy_(negatives)
    torch.testing.assert_close(both(batch).loss, first + one(swapped).loss)
    assert both.queue.place == 16


def test_a_queue_must_be_a_whole_number_of_batches():
    assert make("moco").batch_problem(16) is None
    assert "queue of 32" in make("moco").batch_problem(12)
    assert make("moco", symmetric=True).batch_problem(32)


@pytest.mark.parametrize(
    ("batch", "ranks", "complaint"),
    [
        (16, 1, None),
        (16, 2, None),  # two parts of four on each rank
        (16, 4, None),  # which are parts already
        (16, 16, None),
        (4, 1, "split_bn=4 cannot split the 4 images that a rank has at a time into 4 equal parts"),
        (4, 2, "into 2 equal parts"),
        (6, 1, "split the 6 images that a rank"),
    ],
)
def test_parts_of_split_batch_norm_are_equal_and_hold_two_images(batch, ranks, complaint):
    found = make("moco", split_bn=4, queue=batch).batch_problem(batch, ranks)
    assert found is None if complaint is None else complaint in found


def test_dilo_is_moco_with_another_recipe_and_nothing_else():
    moco, dilo = make("moco"), DiLo(DiLo.Settings(**SMALL["moco"]), Tiny())
    dilo.load_state_dict(moco.state_dict())
    assert torch.equal(moco(noise(16)).loss, dilo(noise(16)).loss)
    assert (MoCo.Settings().views, DiLo.Settings().views) == ("moco_v2", "dilo")
    assert DiLo.on_step_start is MoCo.on_step_start


def test_dilo_logs_the_share_of_views_that_were_pasted():
    """Rows of images without a usable mask say that nothing was pasted, whatever was planned."""
    method, batch = DiLo(DiLo.Settings(**SMALL["moco"]), Tiny()), noise(16)
    batch.rows["paste"][:5, 0] = ON_GREY
    batch.rows["paste"][3:6, 1] = ON_IMAGE
    found = method(batch).metrics["pasted"]
    torch.testing.assert_close(found, torch.tensor(8 / 32))
    assert found == torch.cat([*batch.pasted.values()]).float().mean()


def test_losses_are_settled_once_the_queue_holds_only_keys():
    method = make("moco", queue=32)
    settled = [bool(method(noise(16, seed=step)).settled) for step in range(5)]
    assert settled == [False, False, True, True, True]  # two batches fill the queue
    twice = make("moco", queue=32, symmetric=True)
    assert [bool(twice(noise(16)).settled) for _ in range(3)] == [False, True, True]
    again = make("moco", seed=1)
    again.load_state_dict(method.state_dict())
    assert again(noise(16)).settled and again.queue.keys.shape == (32, 4)


def test_split_batch_norm_is_batch_norm_of_each_part():
    whole = Tiny()
    parts = copy.deepcopy(whole)
    norms.split_batch_norms(parts, 4)
    x = torch.randn(16, 3, 8, 8)
    found = parts(x)
    for part in range(4):
        torch.testing.assert_close(found[part::4], copy.deepcopy(whole)(x[part::4]))
    means = [copy.deepcopy(whole) for _ in range(4)]
    for part, module in enumerate(means):
        module(x[part::4])
    expected = torch.stack([module.norm.running_mean for module in means]).mean(0)
    torch.testing.assert_close(parts.norm.running_mean, expected)
    again = copy.deepcopy(whole).eval()
    again.load_state_dict(parts.state_dict())
    torch.testing.assert_close(parts.eval()(x), again(x))


# ------------------------------------------------------------------------------------ patches


def test_emp_ssl_is_the_official_loss():
    """main.py of tsb0601/EMP-SSL: contractive cosine and coding rate, patch index by index."""
    method = make("emp_ssl")
    batch = noise(16, views=5)
    found = method(batch).loss
    z = torch.stack([method.projector(method.backbone(batch.flat("views")))]).view(5, 16, -1)
    z = normalize(z, dim=-1)
    mean = z.mean(0)
    alike = torch.stack([cosine_similarity(one, mean, dim=1).mean() for one in z]).mean()
    width = z.shape[-1]
    rates = [torch.logdet(torch.eye(width) + width / (16 * 0.2) * one.T @ one) / 2 for one in z]
    torch.testing.assert_close(
        found, -200 * alike - torch.stack(rates).mean(), rtol=1e-5, atol=1e-4
    )


def test_emp_ssls_representation_is_the_wide_layers():
    method = EMPSSL(EMPSSL.Settings(hidden=10, dim=4), Tiny())
    h = method.backbone(torch.randn(4, 3, 8, 8))
    assert h.shape == (4, 10) and (h >= 0).all() and method.backbone.num_features == 10


@pytest.mark.parametrize("name, views", [("bagssl", 3), ("byol", 2)])
def test_byols_teacher_slows_down_by_a_cosine_to_a_halt(name, views):
    """solo-learn's MomentumUpdater, utils/momentum.py: an update, then the next momentum."""
    method = make(name, momentum=0.6, **({"objective": "byol"} if name == "bagssl" else {}))
    student = nn.Sequential(method.backbone, method.projector)
    expected = [param.clone() for param in method.teacher.parameters()]
    steps, tau = 8, 0.6
    for done in range(steps + 1):
        step(method, noise(16, views=views, seed=done))
        method.after_update(Progress(done, steps, 0.0, 1))
        for mean, param in zip(expected, student.parameters(), strict=True):
            mean.copy_(tau * mean + (1 - tau) * param.detach())
        for mine, theirs in zip(method.teacher.parameters(), expected, strict=True):
            torch.testing.assert_close(mine, theirs)
        tau = 1 - (1 - 0.6) * (math.cos(math.pi * (done + 1) / steps) + 1) / 2
        if done + 1 == steps:
            assert tau == 1.0


# ------------------------------------------------------------------------------------- bad input


def config(name: str, views: str):
    settings = METHODS[name].Settings(**SMALL[name])
    settings.views = views
    return SimpleNamespace(
        method_name=name,
        method=settings,
        model=Model("resnet10t"),
        data=SimpleNamespace(train="scenes:20"),
    )


@pytest.mark.parametrize(
    "name, views, said",
    [
        ("moco", "bagssl(patches=3)", "MoCo takes 2 views"),
        ("simclr", "dino", "one group of views"),
        ("emp_ssl", "eval", "at least 2"),
        ("byol", "eval", "BYOL takes 2 views of an image, but eval makes 1"),
        ("byol", "bagssl(patches=3)", "BYOL takes 2 views of an image, but bagssl makes 3"),
        ("byol", "lejepa", "one group of views"),
        ("lejepa", "eval", "LeJEPA takes at least 2 views of an image, but eval makes 1"),
        ("lejepa", "lejepa(global_crops=1, local_crops=0)", "at least 2 views"),
    ],
)
def test_views_that_do_not_fit_are_errors(name, views, said):
    with pytest.raises(MillError, match=said):
        methods.build(config(name, views))


def test_missing_labels_are_an_error():
    with pytest.raises(MillError, match="learns from labels"):
        methods.build(config("supervised", "eval"))
    assert methods.build(config("supervised", "eval"), 3).classifier.out_features == 3


def test_every_methods_own_views_fit_it():
    for method in METHODS.values():
        method.check(method.Settings(), presets_of(method.Settings().views))


def presets_of(views: str):
    from patchmill.loaders.recipe_load import load_recipe

    assert views.partition("(")[0] in presets.ALL
    return load_recipe(views)
