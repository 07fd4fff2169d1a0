"""Reference implementation of the losses in plain PyTorch, with all logits in memory."""

from __future__ import annotations

import torch


def info_nce(
    queries: torch.Tensor,
    positives: torch.Tensor,
    keys: torch.Tensor,
    temperature: float,
    in_batch: bool = False,
) -> torch.Tensor:
    """MoCo: mean over i of  -log( exp(q_i.p_i / T) / (exp(q_i.p_i / T) + sum_j exp(q_i.k_j / T)) ).

    With `in_batch`, the positives of the other rows, p_j for all j != i, are keys too.
    """
    positive = (queries * positives).sum(1, keepdim=True)
    logits = torch.cat([positive, queries @ keys.T], dim=1) / temperature
    if in_batch:
        others = queries @ positives.T / temperature
        others = others.masked_fill(torch.eye(len(others), device=others.device).bool(), -torch.inf)
        logits = torch.cat([logits, others], dim=1)
    return (logits.logsumexp(1) - logits[:, 0]).mean()


def nt_xent(
    z: torch.Tensor,
    temperature: float,
    gathered: torch.Tensor | None = None,
    offset: int = 0,
) -> torch.Tensor:
    """SimCLR: z is [V, B, d]; a = (view, image) is an anchor, c runs over all rows except a.

    Mean over anchors a and over their positives p, the other V - 1 views of the image of a, of
    -log( exp(z_a.z_p / T) / sum_c exp(z_a.z_c / T) ). With `gathered`, [V, total, d], c and p are
    rows of that, where image b of z is image offset + b.
    """
    rows = z if gathered is None else gathered
    views, local, d = z.shape
    total = rows.shape[1]
    logits = z.reshape(-1, d) @ rows.reshape(-1, d).T / temperature
    anchor = torch.arange(views * local, device=z.device)
    view, image = anchor // local, anchor % local + offset
    column = torch.arange(views * total, device=z.device)
    itself = column == (view * total + image)[:, None]
    positive = (column % total == image[:, None]) & ~itself
    log_sum_exp = logits.masked_fill(itself, -torch.inf).logsumexp(1)
    positive_logits = logits.masked_fill(~positive, 0).sum(1) / (views - 1)
    return (log_sum_exp - positive_logits).mean()
