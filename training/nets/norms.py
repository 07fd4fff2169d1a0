"""Split batch norm: normalises parts of a batch separately, as if each were on a separate GPU."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of MoCo's CIFAR-10 demo: image i belongs to part i % parts, in training only."""

    parts: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = x.shape
        if not self.training or count % self.parts:
            return super().forward(x)
        means, variances = self.running_mean, self.running_var
        assert means is not None and variances is not None and self.momentum is not None
        mean, var = means.repeat(self.parts), variances.repeat(self.parts)
        out = F.batch_norm(
            x.reshape(-1, channels * self.parts, height, width),
            mean,
            var,
            self.weight.repeat(self.parts),
            self.bias.repeat(self.parts),
            True,
            self.momentum,
            self.eps,
        )
        with torch.no_grad():
            means.copy_(mean.view(self.parts, channels).mean(0))
            variances.copy_(var.view(self.parts, channels).mean(0))
        return out.view(count, channels, height, width)


def split_batch_norms(module: nn.Module, parts: int) -> None:
    """Replace every BatchNorm2d in the module with a SplitBatchNorm2d."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = SplitBatchNorm2d(child.num_features, child.eps, child.momentum)
            norm.load_state_dict(child.state_dict())
            norm.parts = parts
            setattr(module, name, norm)
        else:
            split_batch_norms(child, parts)
