"""MoCo v1 and v2 (He et al., arXiv 1911.05722; Chen et al., arXiv 2003.04297).

Queries of the trained encoder f_q are contrasted with keys of the momentum encoder f_k, whose keys
of earlier batches are kept in a queue as negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import normalize

from patchmill.kernels.common.upload import upload
from patchmill.kernels.contrast import info_nce
from patchmill.loaders.batch import ViewBatch
from patchmill.training.config.settings import Count, Positive, Share, Whole
from patchmill.training.methods.method import Losses, Method, Progress, embedding_std, parts_of
from patchmill.training.nets import heads, norms
from patchmill.training.nets.backbones import Backbone
from patchmill.training.nets.ema import Teacher
from patchmill.training.objectives.queue import Queue
from patchmill.training.ranks import distributed


@dataclass
class MoCoSettings:
    views: str = "moco_v2"  # the recipe: a preset with its knobs, or a YAML file
    dim: Count = 128  # dimension of queries and keys
    hidden: Whole = 2048  # width of the projector's hidden layer; 0: a linear projector, as in v1
    queue: Count = 65536  # length of the queue of negative keys
    momentum: Share = 0.999  # EMA momentum of the momentum encoder
    temperature: Positive = 0.2  # temperature of the logits; 0.07 in v1
    shuffle_bn: bool = True  # shuffle keys across ranks, against leaks through batch norm
    split_bn: Whole = 0  # parts of a batch with their own batch norm, as if on so many GPUs
    symmetric: bool = False  # use each view as query and as key


class MoCo(Method):
    Settings = MoCoSettings
    projector: nn.Sequential
    view_groups = ((2, 2),)

    def __init__(self, settings: MoCoSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings = settings
        if (parts := _local_parts(settings, distributed.current().size)) > 1:
            norms.split_batch_norms(backbone, parts)
        width = backbone.num_features
        hidden = [settings.hidden] if settings.hidden else []
        self.backbone = backbone
        self.projector = heads.mlp([width, *hidden, settings.dim], norm=False)
        self.follower = Teacher(self._encoder_q())  # f_k; the attribute's name is a checkpoint key
        self.queue = Queue(settings.queue, settings.dim)

    def on_step_start(self, progress: Progress) -> None:
        self.follower.update(self._encoder_q(), self.settings.momentum)

    def teacher_networks(self) -> tuple[Backbone, nn.Module | None]:
        return parts_of(self.follower)

    def forward(self, batch: ViewBatch) -> Losses:
        first, second = batch.crops()
        pairs = [(self._query(first), self._key(second))]
        if self.settings.symmetric:
            pairs.append((self._query(second), self._key(first)))
        negatives = self.queue.keys.clone()  # the queue changes below, before the backward pass
        settled = self.queue.is_full
        losses = [info_nce(q, k, negatives, self.settings.temperature) for q, k in pairs]
        self.queue.push(distributed.gather_no_grad(torch.cat([k for _, k in pairs])))
        return Losses(torch.stack(losses).sum(), {"spread": embedding_std(pairs[0][0])}, settled)

    def batch_problem(self, batch: int, ranks: int = 1) -> str | None:
        local, parts = batch // ranks, _local_parts(self.settings, ranks)
        if local % parts or (parts > 1 and local == parts):
            return (
                f"method.split_bn={self.settings.split_bn} cannot split the {local} images that a "
                f"rank has at a time into {parts} equal parts of at least two: change "
                "train.batch_size, or set it to 0"
            )
        keys = batch * (2 if self.settings.symmetric else 1)
        if self.settings.queue % keys == 0:
            return None
        return (
            f"the queue of {self.settings.queue} keys is not a multiple of a batch's {keys} keys: "
            "change train.batch_size or method.queue"
        )

    def _encoder_q(self) -> nn.Sequential:
        return nn.Sequential(self.backbone, self.projector)

    def _query(self, views: torch.Tensor) -> torch.Tensor:
        return normalize(self.projector(self.backbone(views)).float())

    @torch.no_grad()
    def _key(self, views: torch.Tensor) -> torch.Tensor:
        """Compute keys whose batch norm sees other images than their queries' (shuffled BN)."""
        if not self.settings.shuffle_bn:
            return normalize(self.follower(views).float())
        if not self.settings.split_bn:
            return self._shuffled_keys(views)
        order = upload(torch.randperm(len(views)), views.device)  # for the parts of split_bn
        return self._shuffled_keys(views[order])[order.argsort()]

    def _shuffled_keys(self, views: torch.Tensor) -> torch.Tensor:
        """Compute keys on other ranks than their queries."""
        shuffled, order = distributed.shuffle(views)
        return distributed.unshuffle(normalize(self.follower(shuffled).float()), order)


def _local_parts(settings: MoCoSettings, ranks: int) -> int:
    """Return the parts of one rank's batch: each rank has its own batch norms."""
    return max(1, settings.split_bn // ranks)
