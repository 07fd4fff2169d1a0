"""Supervised classification: the baseline for the self-supervised methods."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.functional import cross_entropy

from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Share
from patchmill.training.methods.method import ANY, Losses, Method, flatten_views
from patchmill.training.nets.backbones import Backbone


@dataclass
class SupervisedSettings:
    views: str = "moco_v1"  # the recipe: a preset with its knobs, or a YAML file
    smoothing: Share = 0.0  # label smoothing


class Supervised(Method):
    Settings = SupervisedSettings
    needs_labels = True
    view_groups = ((1, ANY),)

    def __init__(self, settings: SupervisedSettings, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.classifier = nn.Linear(backbone.num_features, classes)

    def forward(self, batch: ViewBatch) -> Losses:
        logits = self.classifier(self.backbone(flatten_views(batch))).float()
        assert batch.labels is not None  # methods.build refuses data without labels
        labels = batch.labels.repeat(len(logits) // len(batch))
        loss = cross_entropy(logits, labels, label_smoothing=self.settings.smoothing)
        return Losses(loss, {"accuracy": (logits.detach().argmax(1) == labels).float().mean()})
