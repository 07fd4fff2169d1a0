"""MoCo, v1 and v2 (He et al., arXiv 1911.05722; Chen et al., 2003.04297).

f_q is trained; f_k follows it and makes the keys, which wait in a queue as negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import normalize

from patchmill.kernels.contrast import info_nce
from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Count, Positive, Share, Whole
from patchmill.training.methods.method import Losses, Method, Progress, spread
from patchmill.training.nets import heads, norms
from patchmill.training.nets.backbones import Backbone
from patchmill.training.nets.ema import Teacher
from patchmill.training.objectives.queue import Queue
from patchmill.training.ranks import distributed


@dataclass
class MoCoSettings:
    views: str = "moco_v2"  # the recipe: a preset with its knobs, or a YAML file
    dim: Count = 128  # of queries and keys
    hidden: Whole = 2048  # width of the head's hidden layer; 0 for a linear head, as in v1
    queue: Count = 65536  # keys that wait as negatives
    momentum: Share = 0.999  # of the keys' network
    temperature: Positive = 0.2  # of the logits; 0.07 in v1
    shuffle_bn: bool = True  # keys are normalised among others than their queries, over the ranks
    split_bn: Whole = 0  # parts of a batch that normalise apart, as if on so many GPUs
    symmetric: bool = False  # each view is query once and key once


class MoCo(Method):
    Settings = MoCoSettings
    projector: nn.Sequential
    views_wanted = (2, 2)

    def __init__(self, settings: MoCoSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings = settings
        if (parts := _parts(settings, distributed.current().size)) > 1:
            norms.split(backbone, parts)
        width = backbone.num_features
        hidden = [settings.hidden] if settings.hidden else []
        self.backbone = backbone
        self.projector = heads.mlp([width, *hidden, settings.dim], norm=False)
        self.follower = Teacher(nn.Sequential(self.backbone, self.projector))  # f_k
        self.queue = Queue(settings.queue, settings.dim)

    def step_begins(self, progress: Progress) -> None:
        self.follower.update(nn.Sequential(self.backbone, self.projector), self.settings.momentum)

    def forward(self, batch: ViewBatch) -> Losses:
        first, second = batch.crops()
        if not self.settings.symmetric:
            return self._losses([(self._queries(first), self._keys(second))])
        pairs = [(first, second), (second, first)]
        return self._losses([(self._queries(one), self._keys(other)) for one, other in pairs])

    def global_batch_must(self, batch: int, ranks: int = 1) -> str | None:
        share, parts = batch // ranks, _parts(self.settings, ranks)
        if share % parts or (parts > 1 and share == parts):
            return (
                f"method.split_bn={self.settings.split_bn} cannot make {parts} equal parts, of two "
                f"images or more, of the {share} that a rank has at a time: change "
                "train.batch_size, or set it to 0"
            )
        keys = batch * (2 if self.settings.symmetric else 1)
        if self.settings.queue % keys == 0:
            return None
        return (
            f"the queue of {self.settings.queue} keys is not a whole number of batches of {keys} "
            "keys: change train.batch_size or method.queue"
        )

    def _losses(self, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> Losses:
        negatives = self.queue.keys.clone()  # which the new keys, below, must not alter
        losses = [info_nce(q, k, negatives, self.settings.temperature) for q, k in pairs]
        self.queue.push(distributed.gather_stopped(torch.cat([k for _, k in pairs])))
        return Losses(torch.stack(losses).sum(), {"spread": spread(pairs[0][0])})

    def _queries(self, views: torch.Tensor) -> torch.Tensor:
        return normalize(self.projector(self.backbone(views)).float())

    @torch.no_grad()
    def _keys(self, views: torch.Tensor) -> torch.Tensor:
        if not self.settings.shuffle_bn:
            return normalize(self.follower(views).float())
        within = torch.randperm(len(views)).to(views.device)  # for the parts of split_bn
        mixed, order = distributed.shuffle(views[within] if self.settings.split_bn else views)
        keys = distributed.unshuffle(normalize(self.follower(mixed).float()), order)
        return keys[within.argsort()] if self.settings.split_bn else keys


def _parts(settings: MoCoSettings, ranks: int) -> int:
    """Of a rank's batch: ranks are parts already."""
    return max(1, settings.split_bn // ranks)
