"""Batches, detectors and their training on a few small images."""

from __future__ import annotations

import itertools
from pathlib import Path

import helpers_detection as helpers
import numpy as np
import pytest
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.detect import annotated, batches, detector, train
from patchmill.training.evaluation.detect.annotated import AnnotatedImages, open_images
from patchmill.training.evaluation.detect.protocols import Protocol

pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def scenes() -> AnnotatedImages:
    return open_images("scenes(count=6, size=48, classes=2)", None, "")


# ------------------------------------------------------------------------------------------ batches


def test_each_epoch_has_every_image_once_and_the_order_comes_from_the_seed(scenes: AnnotatedImages):
    def numbers(seed: int, batch: int) -> list[int]:
        whole = [annotated.pixels(scenes, index).astype(int).sum() for index in range(len(scenes))]
        feed = batches.training(scenes, batch, 12 // batch, seed, False, threads=2)
        return [whole.index(e.image.int().sum().item()) for examples in feed for e in examples]

    order = numbers(0, 3)
    assert sorted(order[:6]) == sorted(order[6:]) == list(range(6)) and order[:6] != order[6:]
    assert order == numbers(0, 4) != numbers(1, 3)


def test_boxes_and_masks_are_mirrored_with_their_image(tmp_path: Path):
    boxes = [
        helpers.box(3, 5, [2, 2, 8, 8], segmentation=helpers.SQUARE),
        helpers.box(3, 2, [0, 4, 5, 6], segmentation=[[0, 4, 5, 4, 5, 10, 0, 10]]),
        helpers.box(3, 5, [0, 0, 9, 9], segmentation=helpers.SQUARE, iscrowd=1),
    ]
    images = open_images(str(helpers.coco(tmp_path, boxes)), None, "")
    feed = batches.training(images, 2, 8, 0, True, threads=1)
    examples = [e for pair in feed for e in pair if len(e.target["labels"])]
    pixels = torch.from_numpy(annotated.pixels(images, 0)).permute(2, 0, 1)
    seen = set()
    for image, target in examples:
        mirrored = not torch.equal(image, pixels)
        seen.add(mirrored)
        assert torch.equal(image.flip(2) if mirrored else image, pixels)
        assert target["labels"].tolist() == [2, 1], "crowds are not trained on"
        expected = (
            [[10, 2, 18, 10], [15, 4, 20, 10]] if mirrored else [[2, 2, 10, 10], [0, 4, 5, 10]]
        )
        assert target["boxes"].tolist() == expected
        for mask, (x1, y1, x2, y2) in zip(target["masks"], expected, strict=True):
            whole = np.zeros((16, 20), np.uint8)
            whole[y1:y2, x1:x2] = 1
            assert np.array_equal(mask.numpy(), whole)
    assert seen == {False, True}


def test_test_images_come_in_order(scenes: AnnotatedImages):
    feed = list(batches.testing(scenes, 4, threads=2))
    assert [len(examples) for examples in feed] == [4, 2]
    for index, example in enumerate(e for examples in feed for e in examples):
        expected = annotated.pixels(scenes, index)
        assert np.array_equal(example.image.permute(1, 2, 0).numpy(), expected)


# ---------------------------------------------------------------------------------------- detectors


def test_anchors_are_in_proportion_to_small_images():
    assert detector.anchors(800).sizes == ((32,), (64,), (128,), (256,), (512,))
    assert detector.anchors(1000).sizes == detector.anchors(800).sizes
    assert detector.anchors(100).sizes == ((4,), (8,), (16,), (32,), (64,))


@pytest.mark.parametrize("masked", [True, False])
def test_training_lowers_the_loss_and_repeats(masked: bool, scenes: AnnotatedImages):
    def curve(plan: Protocol, alone: bool = False) -> list[float]:
        """Losses of each step; on the first batch alone, or on all."""
        model = helpers.small_detector(plan, 2, masked)
        with train.seeded(0, helpers.CPU.device):
            feed = batches.training(scenes, plan.batch, plan.total, 0, masked, threads=2)
            feed = itertools.repeat(next(feed), plan.total) if alone else feed
            return train.train(model, feed, plan, helpers.CPU)

    before = torch.random.get_rng_state()
    plan = helpers.protocol(iterations=4, warmup=2, lr=3e-3)
    first = curve(plan)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(first) == 4 and curve(plan) == first
    losses = curve(helpers.protocol(iterations=12, warmup=2, lr=3e-3), alone=True)
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_detections_in_pixels_of_the_image(tmp_path: Path):
    images = open_images(str(helpers.coco(tmp_path, [helpers.box(3, 5, [1, 1, 4, 4])])), None, "")
    plan = helpers.protocol()
    model = helpers.small_detector(plan, 2)
    model.roi_heads.score_thresh = 0.0
    found = train.detect(model, batches.testing(images, 2, 1), 32, helpers.CPU)
    assert len(found) == 2
    for boxes, labels, confidence, masks in found:
        assert boxes.shape == (len(labels), 4) and len(confidence) == len(masks) > 0
        assert (boxes >= 0).all() and (boxes <= [20, 16, 20, 16]).all()
        assert set(labels.tolist()) <= {0, 1}
        assert batches.mask_of(masks[0], 16, 20).shape == (16, 20)


def test_images_without_objects_are_negatives(tmp_path: Path):
    boxes = [helpers.box(3, 5, [1, 1, 8, 8], segmentation=helpers.SQUARE)]
    images = open_images(str(helpers.coco(tmp_path, boxes)), None, "")
    plan = helpers.protocol(iterations=2, batch=1)
    model = helpers.small_detector(plan, 2)
    feed = list(batches.training(images, 1, 2, 0, True, threads=1))
    assert sorted(len(example.target["labels"]) for (example,) in feed) == [0, 1]
    losses = train.train(model, feed, plan, helpers.CPU)
    assert all(np.isfinite(losses))


def test_a_frozen_backbone_is_unchanged(scenes: AnnotatedImages):
    plan = helpers.protocol()
    model = helpers.small_detector(plan, 2, frozen=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train.train(model, batches.training(scenes, 2, 2, 0, True, 1), plan, helpers.CPU)
    after = model.state_dict()
    backbone = [key for key in before if key.startswith("backbone.backbone.")]
    assert backbone and all(torch.equal(before[key], after[key]) for key in backbone)
    assert not torch.equal(
        before["rpn.head.cls_logits.weight"], after["rpn.head.cls_logits.weight"]
    )


def test_a_loss_that_is_not_finite_ends_training(scenes: AnnotatedImages):
    plan = helpers.protocol()
    model = helpers.small_detector(plan, 2)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias.fill_(float("nan"))
    with pytest.raises(MillError, match="the detector's loss is nan at iteration 0: use a lower"):
        train.train(model, batches.training(scenes, 2, 2, 0, True, 1), plan, helpers.CPU)
