"""torchvision's Faster R-CNN and Mask R-CNN on a feature pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from patchmill.training.evaluation.detect.protocols import REFERENCE_SIDE, Protocol
from patchmill.training.evaluation.detect.pyramid import Pyramid

ANCHORS, RATIOS = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)  # sides in pixels, one per map; shapes
BOX, MASK = 7, 14  # sides of the regions' features, for boxes and masks


def build(
    pyramid: Pyramid,
    classes: int,
    masked: bool,
    protocol: Protocol,
    mean: Sequence[float],
    std: Sequence[float],
) -> GeneralizedRCNN:
    """Build a detector for images in [0, 1]; `mean` and `std` are those of the run's views."""
    channels, labels = protocol.channels, classes + 1  # torchvision's label 0 is no object
    common = dict(
        min_size=protocol.short_sides,
        max_size=protocol.long_side,
        image_mean=list(mean),
        image_std=list(std),
        size_divisible=pyramid.strides[-1],
        rpn_anchor_generator=anchors(protocol.test_side),
        # Per map before NMS, and for all maps together after it, as in GTSA.
        rpn_pre_nms_top_n_train=2 * protocol.proposals,
        rpn_pre_nms_top_n_test=protocol.proposals,
        rpn_post_nms_top_n_train=protocol.proposals,
        rpn_post_nms_top_n_test=protocol.proposals,
        box_roi_pool=_pool(pyramid.strides, BOX),
        box_head=TwoMLPHead(channels * BOX**2, 4 * channels),
        box_predictor=FastRCNNPredictor(4 * channels, labels),
        box_batch_size_per_image=protocol.regions,
    )
    if not masked:
        return FasterRCNN(pyramid, **common)
    return MaskRCNN(
        pyramid,
        **common,
        mask_roi_pool=_pool(pyramid.strides, MASK),
        mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, labels),
    )


def anchors(test_side: int) -> AnchorGenerator:
    """Anchors of 32 to 512 pixels; for images smaller than 800, in proportion."""
    scale = min(1.0, test_side / REFERENCE_SIDE)
    return AnchorGenerator(tuple((side * scale,) for side in ANCHORS), (RATIOS,) * len(ANCHORS))


def _pool(strides: Sequence[int], side: int) -> nn.Module:
    """Build RoIAlign on the maps with their known strides.

    torchvision infers them from one batch, which is wrong for small images with much padding.
    """
    pool = MultiScaleRoIAlign([str(level) for level in range(len(strides))], side, 2)
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = initLevelMapper(int(math.log2(strides[0])), int(math.log2(strides[-1])))
    return pool
