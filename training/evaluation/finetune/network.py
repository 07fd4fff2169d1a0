"""The network that is fine-tuned: a backbone and a new linear classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from patchmill.training.nets.backbones import Backbone
from patchmill.training.nets.dense import feature_maps, trunk


@dataclass(frozen=True)
class Head:
    # The network's own features, or the mean of the last block's patches without the final norm.
    pool: Literal["network", "patches"] = "network"
    norm: bool = False  # a LayerNorm before the linear layer
    std: float | None = 0.01  # of initial weights; None: torch's default


class Classifier(nn.Module):
    """[N, 3, H, W] -> logits [N, classes]; the whole network is trained."""

    def __init__(self, backbone: Backbone, classes: int, head: Head) -> None:
        super().__init__()
        self.backbone, self.classes = backbone.requires_grad_(True), classes
        self._pool = head.pool
        linear = nn.Linear(backbone.num_features, classes)
        norm = nn.LayerNorm(backbone.num_features) if head.norm else nn.Identity()
        if head.std is not None:
            nn.init.trunc_normal_(linear.weight, std=head.std)
            nn.init.zeros_(linear.bias)
        self.head = nn.Sequential(norm, linear)
        if head.norm and head.std is not None:
            nn.init.trunc_normal_(norm.weight, std=head.std)  # type: ignore[arg-type]
        if head.pool == "patches":
            _freeze_final_norm(trunk(backbone))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self._pool == "network":
            return self.head(self.backbone(images))
        return self.head(feature_maps(self.backbone, images)[-1].mean((2, 3)))


def _freeze_final_norm(backbone: nn.Module) -> None:
    """Freeze unused norms after the last block: DDP waits for the gradient of every parameter."""
    for name in ("norm", "fc_norm"):
        if isinstance(norm := getattr(backbone, name, None), nn.Module):
            norm.requires_grad_(False)
