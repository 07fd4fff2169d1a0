"""DINO's loss: cross-entropy between the teacher's and the student's distributions."""

from __future__ import annotations

import torch


def distillation(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean of H(target of q, softmax of v) over the pairs of a global view q and another view v.

    logits are the student's, [V, B, K], those of the G global views first; targets [G, B, K] are
    distributions, without gradient.

    Each view is compared with the sum of all its targets in one step: H(t, s) = logsumexp(s) - t s.
    """
    views, global_views = len(logits), len(targets)
    all_targets = targets.sum(0)
    total = logits.new_zeros(())
    for view, scores in enumerate(logits):
        is_global = view < global_views
        others = all_targets - targets[view] if is_global else all_targets
        count = global_views - is_global
        total = total + (count * scores.logsumexp(-1) - (others * scores).sum(-1)).mean()
    return total / (global_views * (views - 1))
