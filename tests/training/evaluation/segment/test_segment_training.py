"""Training of heads: trained parameters, their rates, and an oracle that reaches 100 %."""

from __future__ import annotations

import copy

import helpers_segment
import pytest
import torch
from helpers_segment import CLASSES, Coloured, Oracle
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.config.settings import Model
from patchmill.training.evaluation.segment import testing, token_knn
from patchmill.training.evaluation.segment.batches import Batch, training_batches
from patchmill.training.evaluation.segment.budget import PAPER
from patchmill.training.evaluation.segment.heads import Linear, SemanticFPN
from patchmill.training.evaluation.segment.segmenter import Segmenter
from patchmill.training.evaluation.segment.training import groups, train
from patchmill.training.nets import backbones, dense
from patchmill.training.optim import schedules


def segmenter(frozen: bool, name: str = "resnet10t") -> Segmenter:
    torch.manual_seed(0)
    model = Model(name, depth=2 if "vit" in name else None)
    backbone = backbones.build(model, 32)
    head = SemanticFPN(dense.layout(backbone, 32).channels, CLASSES, 8)
    return Segmenter(backbone, head, frozen)


def learn(network: Segmenter, seed: int = 0, multiple: int = 8, **overrides: object) -> None:
    budget = helpers_segment.budget(**overrides)
    batches = training_batches(Coloured(4), budget, seed, 1)
    torch.manual_seed(seed)
    train(network, batches, budget, helpers_segment.pixels(multiple), "test")


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_a_trained_backbone_learns_and_a_frozen_one_does_not(name: str):
    for frozen in (False, True):
        network = segmenter(frozen, name)
        before = copy.deepcopy(network.state_dict())
        learn(network, iterations=2)
        changed = {
            key
            for key, value in network.state_dict().items()
            if not torch.equal(value, before[key])
        }
        in_backbone = {key for key in changed if key.startswith("backbone.")}
        assert (
            "head.classify.weight" in changed and "head.pyramid.inner_blocks.0.0.weight" in changed
        )
        if frozen:
            assert not in_backbone
        else:
            first = (
                "backbone.patch_embed.proj.weight" if "vit" in name else "backbone.conv1.0.weight"
            )
            assert first in in_backbone or "backbone.conv1.weight" in in_backbone


def test_training_is_the_same_for_a_seed():
    one, same, other = segmenter(False), segmenter(False), segmenter(False)
    learn(one), learn(same), learn(other, seed=1)
    weights = [network.head.classify.weight for network in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not one.training


def test_norms_positions_and_class_tokens_have_no_weight_decay():
    network = segmenter(False, "vit_tiny_patch16_224")
    names = {id(param): name for name, param in network.named_parameters()}
    decayed, rest = ({names[id(p)] for p in group["params"]} for group in groups(network))
    assert decayed | rest == set(names.values()) and not decayed & rest
    assert {"backbone.pos_embed", "backbone.cls_token", "backbone.blocks.0.norm1.weight"} <= rest
    assert {"backbone.blocks.0.norm1.bias", "head.levels.0.1.weight"} <= rest
    assert {"backbone.blocks.0.mlp.fc1.bias", "head.classify.weight"} <= decayed
    assert len(groups(segmenter(True))) == 2


def test_the_papers_rates_are_mmcvs():
    """`poly` with a linear warm-up, of mmcv's lr_updater.py, for 40 000 iterations."""
    steps, warmup, ratio = 40_000, 1500, 1e-6
    for step in (0, 1, 700, 1499, 1500, 20_000, 39_999):
        regular = 6e-5 * (1 - step / steps) ** 1.0
        k = (1 - step / warmup) * (1 - ratio)
        expected = regular * (1 - k) if step < warmup else regular
        found = schedules.rates_at(PAPER.optim(), 256, step, steps, 1)
        assert found.lr == pytest.approx(expected, rel=1e-9) and found.weight_decay == 0.01


def test_the_loss_is_the_mean_over_all_pixels_and_ignores_those_without_a_label():
    """A batch without any label changes nothing that has a gradient, and is not NaN."""

    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(CLASSES))

        def forward(self, images):
            return self.bias[None, :, None, None].expand(len(images), -1, *images.shape[-2:])

    budget = helpers_segment.budget(iterations=1, warmup=0.0, weight_decay=0.0)
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    network = Scores()
    blank = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    train(network, [Batch(images, blank)], budget, helpers_segment.pixels(), "test")  # type: ignore[arg-type]
    assert torch.equal(network.bias, torch.zeros(CLASSES))
    blank[0, 0, 0] = 2
    train(network, [Batch(images, blank)], budget, helpers_segment.pixels(), "test")  # type: ignore[arg-type]
    assert network.bias.grad[2].item() == pytest.approx((1 / CLASSES - 1) / 64)


def test_a_loss_that_is_not_finite_is_an_error(monkeypatch: pytest.MonkeyPatch):
    from patchmill.training.evaluation.segment import training

    monkeypatch.setattr(training, "CHECK_EVERY", 1)
    network = segmenter(True)
    with torch.no_grad():
        network.head.classify.weight.fill_(float("nan"))
    with pytest.raises(MillError, match=r"the loss of the head is nan at iteration 0: use a small"):
        learn(network)


def test_a_linear_probe_on_colours_segments_colours():
    torch.manual_seed(0)
    network = Segmenter(Oracle(), Linear(3, CLASSES), frozen=True)  # type: ignore[arg-type]
    budget = helpers_segment.budget(iterations=120, batch=4, lr=0.05)
    train(
        network,
        training_batches(Coloured(8), budget, 0, 1),
        budget,
        helpers_segment.pixels(),
        "test",
    )
    found = testing.score(
        network, Coloured(4, 32, 48, seed=50), (32, 32), helpers_segment.pixels(), 1, [1]
    )
    assert found.scores.aAcc > 0.97 and found.scores.mIoU > 0.94
    assert found.predictions[1].shape == (32, 48)


def test_knn_of_colours_segments_colours_at_any_size():
    pixels, data = helpers_segment.pixels(), Coloured(6)
    bank = token_knn.collect(Oracle(), data, (32, 32), pixels, 200, 0, 1)  # type: ignore[arg-type]
    assert len(bank.tokens) == 6 * 33 and set(bank.labels.tolist()) == set(range(CLASSES))
    knn = token_knn.TokenKNN(Oracle(), bank, CLASSES, 5, 0.07)  # type: ignore[arg-type]
    for shape in ((32, 32), (40, 56)):
        found = testing.score(knn, Coloured(3, *shape, seed=50), shape, pixels, 1)
        assert found.scores.aAcc > 0.97 and not found.predictions
    resized = testing.score(knn, Coloured(3, 32, 32, seed=50), (46, 46), pixels, 1)
    assert resized.scores.aAcc > 0.9  # 46 is padded to 48, and the masks are of 32


def test_a_bank_is_bounded_and_drawn_by_the_seed():
    arguments = (Oracle(), Coloured(6), (32, 32), helpers_segment.pixels())
    first, same, other = (token_knn.collect(*arguments, 12, seed, 1) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert len(first.labels) == 12 and torch.equal(first.tokens, same.tokens)
    assert not torch.equal(first.tokens, other.tokens)
    few = token_knn.collect(*arguments, 3, 0, 1)  # type: ignore[arg-type]
    assert len(few.labels) == 3


def test_a_patch_has_the_label_of_most_of_its_pixels():
    mask = torch.full((1, 4, 8), 255)
    mask[0, :, :4] = torch.tensor([[5, 5, 7, 7], [5, 5, 7, 7], [7, 0, 0, 0], [255] * 4])
    assert token_knn.patch_labels(mask, torch.Size((1, 2))).tolist() == [[7, 255]]
    assert token_knn.patch_labels(mask, torch.Size((2, 4))).tolist() == [
        [5, 7, 255, 255],
        [0, 0, 255, 255],
    ]
    fewer = torch.full((1, 2, 2), 255)
    fewer[0, 0, 0] = 3
    assert token_knn.patch_labels(fewer, torch.Size((1, 1))).tolist() == [[3]]


def test_unlabelled_images_have_no_bank():
    class Blank(Coloured):
        def read(self, index):
            sample = super().read(index)
            sample.mask.fill_(255)
            return sample

    with pytest.raises(MillError, match="no pixel of coloured has a label"):
        token_knn.collect(Oracle(), Blank(2), (32, 32), helpers_segment.pixels(), 9, 0, 1)  # type: ignore[arg-type]
