"""Selfie against its formula, and invariants for any weights."""

from __future__ import annotations

import copy
import math
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import helpers_runs
import pytest
import torch
from helpers_methods import Tiny, noise, step
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models.resnetv2 import ResNetV2
from torch import nn

from patchmill import loaders
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe_load import load_recipe
from patchmill.training import methods, report
from patchmill.training.config.settings import Model
from patchmill.training.methods import selfie
from patchmill.training.methods.selfie import Selfie
from patchmill.training.nets import dense, patch_network
from patchmill.training.nets.attention_pooling import AttentionPooling
from patchmill.training.runtime import records

SMALL = dict(heads=2, blocks=2, hidden=8, dropout=0.0)  # 4 of 16 patches are masked
MASKED = 4


def make(network: nn.Module | None = None, **changes) -> Selfie:
    torch.manual_seed(0)
    method = Selfie(Selfie.Settings(**(SMALL | changes)), network or Tiny())
    last = method.pooling.layers[-1]
    nn.init.ones_((last.norm2 if hasattr(last, "norm2") else last).weight)  # summaries that matter
    with torch.no_grad():  # positions that matter
        for positions in filter(None, (method.positions, method.context_positions)):
            for part in positions.parts:
                part.normal_()
    return method


def tiny_resnet() -> nn.Module:
    """A pre-activation ResNet whose first three stages have 8 features."""
    return ResNetV2(
        layers=(1, 1, 1, 1),
        channels=(8, 8, 8, 16),
        stem_chs=8,
        bottle_ratio=1.0,
        num_classes=0,
        norm_layer=BatchNormAct2d,
        conv_layer=create_conv2d,
    )


def zero_positions(method: Selfie) -> None:
    for part in method.positions.parts:
        nn.init.zeros_(part)


def orders(monkeypatch: pytest.MonkeyPatch, table: torch.Tensor) -> None:
    """Let the first grids have the cells' orders of this table [grids, cells]."""
    monkeypatch.setattr(selfie, "permutations", lambda grids, cells, device: table[:grids])


# ----------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("shared", [True, False])
def test_the_loss_is_the_papers(shared, monkeypatch):
    """Written out with loops: for each image and masked cell, a softmax over its masked patches."""
    method = make(shared_positions=shared).eval()
    batch = noise(5, views=16)
    table = torch.stack([torch.randperm(16) for _ in range(5)])
    orders(monkeypatch, table)
    queries = method.positions.parts[0].flatten(0, 1)
    context_positions = queries if shared else method.context_positions.parts[0].flatten(0, 1)
    terms, right = [], 0
    for image, order in enumerate(table.tolist()):
        masked, context = order[:MASKED], order[MASKED:]
        h = {cell: method.backbone(batch.views["views"][image, cell][None])[0] for cell in order}
        u = method.pooling(torch.stack([h[i] + context_positions[i] for i in context])[None])[0]
        for m in masked:
            scores = {j: ((u + queries[m]) @ h[j]).item() for j in masked}
            total = math.log(sum(math.exp(score) for score in scores.values()))
            terms.append(total - scores[m])
            right += max(scores, key=scores.get) == m
    losses = method(batch)
    assert losses.loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert losses.metrics["accuracy"].item() == pytest.approx(right / len(terms))


@pytest.mark.parametrize("masked", [0.25, 0.5, 0.75])
def test_without_summary_and_positions_the_loss_is_ln_of_the_masked(masked):
    method = make(masked=masked)
    zero_positions(method)
    last = method.pooling.layers[-1].norm2
    nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)  # u = 0
    losses = method(noise(8, views=16))
    assert losses.loss.item() == pytest.approx(math.log(16 * masked), abs=1e-6)


@pytest.mark.parametrize("layer_norm", ["post", "pre"])
def test_scores_begin_near_one(layer_norm):
    """Scores of a network as wide as a ResNet's begin with the loss of guessing, not far above."""
    pooling = AttentionPooling(
        1024, blocks=1, heads=8, hidden=64, dropout=0.0, pre_norm=layer_norm == "pre"
    )
    h = torch.randn(64, 16, 1024, generator=torch.Generator().manual_seed(0)).relu()
    u = pooling(h[:, MASKED:])
    torch.testing.assert_close(u.norm(dim=1), torch.ones(64), atol=1e-3, rtol=0)
    scores = (u[:, None] @ h[:, :MASKED].mT)[:, 0]
    guessing = torch.nn.functional.cross_entropy(scores, torch.zeros(64, dtype=torch.long))
    assert guessing < math.log(MASKED) + 0.5


def test_an_untrained_network_is_right_by_chance():
    accuracy = make()(noise(400, views=16)).metrics["accuracy"].item()
    assert accuracy == pytest.approx(1 / MASKED, abs=4 * math.sqrt(1 / 4 * 3 / 4 / 1600))


def test_without_positions_no_network_beats_chance():
    """All queries of an image are equal then: one of them is right, and the loss has a floor."""
    method = make()
    for part in method.positions.parts:
        part.requires_grad_(False).zero_()
    for seed in range(30):
        loss = step(method, placed(8, seed), lr=0.05)
        assert loss >= math.log(MASKED) - 1e-6
        assert method(placed(8, seed + 100)).metrics["accuracy"].item() == pytest.approx(1 / MASKED)


def test_positions_are_learnt():
    """Patches whose colour says which cell they are from are put where they belong."""
    method = make()
    optimiser = torch.optim.Adam(method.parameters(), 0.02)
    for seed in range(150):
        optimiser.zero_grad()
        method(placed(8, seed)).loss.backward()
        optimiser.step()
    assert method(placed(50, 1000)).metrics["accuracy"] > 0.8


def placed(count: int, seed: int):
    """Noise, with a colour that each cell of the 4 x 4 has to itself."""
    batch = noise(count, views=16, size=4, seed=seed)
    row, column = torch.arange(16) // 4, torch.arange(16) % 4
    colours = torch.stack([row - 1.5, column - 1.5, (row == column).float()], -1)
    return replace(batch, views={"views": 0.3 * batch.views["views"] + colours[:, :, None, None]})


# --------------------------------------------------------------------------- what it depends on


def test_images_have_nothing_to_do_with_one_another(monkeypatch):
    """Distractors and context are of the same image: losses of images are averaged, no more."""
    method = make().eval()
    first, second = noise(2, views=16, seed=1), noise(2, views=16, seed=2)
    orders(monkeypatch, torch.stack([torch.randperm(16) for _ in range(2)]))
    mixed = replace(first, views={"views": first.views["views"].clone()})
    mixed.views["views"][1] = second.views["views"][1]
    change = 2 * (method(mixed).loss - method(first).loss)
    orders(monkeypatch, selfie.permutations(2, 16, torch.device("cpu"))[1:])
    alone = [
        method(replace(b, views={"views": b.views["views"][1:]}, ids=b.ids[1:])).loss
        for b in (first, second)
    ]
    torch.testing.assert_close(change, alone[1] - alone[0])


def test_the_context_is_a_set_of_patches_with_positions(monkeypatch):
    """Another order of it makes no difference, and exchanging its patches does."""
    method = make().eval()
    batch = noise(3, views=16)
    order = torch.arange(16).repeat(3, 1)
    orders(monkeypatch, order)
    loss = method(batch).loss
    shuffled = order.clone()
    shuffled[:, MASKED:] = order[:, MASKED:].flip(1)
    orders(monkeypatch, shuffled)
    torch.testing.assert_close(method(batch).loss, loss, atol=1e-5, rtol=0)
    swapped = batch.views["views"].clone()
    swapped[:, MASKED:] = swapped[:, MASKED:].flip(1)
    assert (method(replace(batch, views={"views": swapped})).loss - loss).abs() > 1e-4


def test_masked_patches_do_not_reach_the_summary(monkeypatch):
    method = make().eval()
    summaries = []
    method.pooling.register_forward_hook(lambda module, inputs, u: summaries.append(u))
    orders(monkeypatch, torch.arange(16).repeat(3, 1))
    batch = noise(3, views=16)
    method(batch)
    batch.views["views"][:, :MASKED] = 0
    method(batch)
    batch.views["views"][:, MASKED] += 1
    method(batch)
    assert torch.equal(summaries[0], summaries[1])
    assert not torch.allclose(summaries[0], summaries[2])


def test_every_image_has_as_many_masked_patches_and_all_cells_are_masked_alike():
    torch.manual_seed(0)
    order = selfie.permutations(4000, 16, torch.device("cpu"))
    assert torch.equal(order.sort(1)[0], torch.arange(16).expand(4000, -1))
    counts = torch.bincount(order[:, :MASKED].flatten(), minlength=16)
    assert (counts - 1000).abs().max() < 5 * math.sqrt(1000)
    assert not torch.equal(order[0], order[1])


def test_distractors_are_trained_too():
    """Gradients reach every masked patch of an image through the scores of the others."""
    method = make().eval()
    pixels = noise(2, views=16).views["views"].clone().requires_grad_()
    method(replace(noise(2, views=16), views={"views": pixels})).loss.backward()
    assert (pixels.grad.flatten(2).abs().amax(2) > 0).all()


def test_several_grids_of_an_image_are_puzzles_of_their_own(monkeypatch):
    """The views of a batch are grid by grid, and row by row in a grid."""
    method = make(views="selfie").eval()
    orders(monkeypatch, torch.stack([torch.randperm(16) for _ in range(6)]))
    two = noise(3, views=32)
    grids = torch.cat([two.views["views"][:, :16], two.views["views"][:, 16:]])
    one = replace(noise(6, views=16), views={"views": grids})
    torch.testing.assert_close(method(two).loss, method(one).loss)


def test_batches_of_the_recipe_have_cells_row_by_row():
    """Patches of the loader, put together, are the view that they were cut from."""
    cells = load_recipe("selfie(size=32)")
    (grid,) = cells.views
    whole = replace(cells, views=(replace(grid, size=32, crop=grid.crop.of),))
    batches = []
    for recipe in (cells, whole):
        with closing(loaders.build("scenes(count=4, size=32)", recipe, batch_size=4)) as loader:
            batches.append(next(iter(loader)))
    patches, view = batches[0].views["patches"], batches[1].views["patches"]
    assert patches.shape == (4, 16, 3, 8, 8)
    image = patches.unflatten(1, (4, 4)).permute(0, 3, 1, 4, 2, 5).reshape(4, 3, 32, 32)
    torch.testing.assert_close(image, view[:, 0])


# ------------------------------------------------------------------------------------ networks


def built() -> Selfie:
    """A method with a patch network for 4 x 4 patches of 8 pixels."""
    return make(patch_network.first_stages(tiny_resnet), heads=4)


def test_the_patch_network_is_three_stages_built_for_the_size_of_patches():
    settings = Selfie.Settings()
    network = Selfie.make_backbone(settings, Model("resnetv2_18"), load_recipe("selfie"))
    assert network.num_features == 256
    assert network.forward_features(torch.zeros(1, 3, 8, 8)).shape == (1, 256, 2, 2)
    assert patch_network.with_new_stages(copy.deepcopy(network)).num_features == 512
    with pytest.raises(MillError, match="VisionTransformer is not"):
        Selfie.make_backbone(settings, Model("vit_tiny_patch16_224"), load_recipe("selfie"))


def test_the_encoder_takes_whole_images():
    h = built().encoder()(torch.randn(3, 3, 64, 64))
    assert h.shape == (3, 8)


def test_fine_tuning_takes_the_whole_resnet_with_the_trained_stages():
    method = built()
    for variant in ("auto", "resnet50"):
        whole = method.finetune_network(variant).eval()
        assert whole.num_features == 16 and whole(torch.randn(2, 3, 64, 64)).shape == (2, 16)
        trained = method.backbone.state_dict()
        for key, value in whole.state_dict().items():
            if not key.startswith(("norm.", "stages.3.")):
                assert torch.equal(value, trained[key])


def test_fine_tuning_takes_the_trained_attention_pooling():
    """Over the map of a whole image, averaged in each cell of the grid, with its positions."""
    method = built().eval()
    network = method.finetune_network("resnet36_attention").eval()
    images = torch.randn(2, 3, 128, 128)
    maps = dense.feature_map(method.backbone, images)
    assert maps.shape == (2, 8, 8, 8)
    cells = [maps[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean((2, 3))
             for row in range(4) for column in range(4)]  # fmt: skip
    expected = method.pooling(torch.stack(cells, 1) + method.positions.parts[0].flatten(0, 1))
    torch.testing.assert_close(network(images), expected)
    assert network.num_features == 8
    with torch.no_grad():
        network.pooling.u0.add_(1)
    assert not torch.equal(network.pooling.u0, method.pooling.u0)  # a copy
    with pytest.raises(MillError, match="did you mean 'resnet36_attention'"):
        method.finetune_network("resnet36_atention")


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("views", "masked", "complaint"),
    [
        ("selfie", 0.97, "masks 16 of an image's 16 patches.* one unmasked: use a value from"),
        ("selfie", 1.0, "masks 16"),
        ("selfie", 0.05, "masks 1 of an image's 16 patches, but Selfie needs at least two masked"),
        ("selfie", 0.0, "masks 0 .* use a value from 0.12 to 0.94"),
        ("selfie(size=64, patch=32)", 0.25, "masks 1 of an image's 4 patches"),
        ("selfie(size=32, patch=32)", 0.5, "cut images into more patches"),
        ("moco_v2", 0.25, "method.views: Selfie takes the patches of a grid, but moco_v2 makes"),
        ("dino", 0.25, "one group of views"),
    ],
)
def test_grids_and_shares_that_leave_nothing_to_learn(views, masked, complaint):
    config = SimpleNamespace(
        method_name="selfie", method=Selfie.Settings(views=views, masked=masked),
        model=Model("resnet10t"), data=SimpleNamespace(train="scenes:20"),
    )  # fmt: skip
    with pytest.raises(MillError, match=complaint):
        methods.build(config)


@pytest.mark.parametrize("share", [0.125, 0.94])
def test_shares_that_the_message_names_are_taken(share):
    Selfie.check(Selfie.Settings(masked=share), load_recipe("selfie"))


def test_images_that_the_patches_do_not_divide():
    with pytest.raises(MillError, match="patch must divide size, but 8 does not divide 20"):
        methods.build(
            SimpleNamespace(method_name="selfie", method=Selfie.Settings("selfie(size=20)"))
        )


# -------------------------------------------------------------------------------------- a run


def test_a_run_that_was_stopped_is_the_run_that_was_not(tmp_path, monkeypatch):
    """Masks and dropout go on where they were, bit by bit."""
    from helpers_runs import stop_at

    torch.set_num_threads(1)
    monkeypatch.setattr(report, "write", lambda folder: folder / "report.html", raising=False)
    for name in ("method.queue", "method.symmetric", "method.dim"):
        monkeypatch.delitem(helpers_runs.OVERRIDES, name)
    overrides = dict(method="selfie", method__views="selfie(size=16, patch=4)", method__heads=2,
                 method__dropout=0.2, train__epochs=2)  # fmt: skip

    def train(name: str):
        return helpers_runs.train(
            helpers_runs.config(tmp_path, name=name, **overrides), tiny_resnet
        )

    whole = train("whole")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        stop_at(patch, 3, 15)
        train("stopped")
    helpers_runs.assert_same(helpers_runs.final(whole), helpers_runs.final(train("stopped")))
    assert {"loss", "accuracy"} <= set(records.read(whole))
