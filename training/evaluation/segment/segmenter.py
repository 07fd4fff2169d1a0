"""A backbone with a head, from images to class scores."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.functional import interpolate

from patchmill.training.evaluation.segment.heads import Linear, SemanticFPN
from patchmill.training.nets import dense
from patchmill.training.nets.backbones import Backbone


class Segmenter(nn.Module):
    """Maps normalised images [N, 3, H, W] to scores [N, classes, H, W], with a backbone's copy.

    A frozen backbone stays in evaluation mode.
    """

    def __init__(self, backbone: Backbone, head: Linear | SemanticFPN, frozen: bool) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone).requires_grad_(not frozen)
        self.head, self.frozen = head, frozen

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = (
                [dense.feature_map(self.backbone, images)]
                if isinstance(self.head, Linear)
                else dense.feature_maps(self.backbone, images)
            )
        return interpolate(self.head(maps).float(), images.shape[-2:], mode="bilinear")
