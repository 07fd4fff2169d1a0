"""`Kept`: what the gradient of a correspondence needs to know of its matches."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Kept(NamedTuple):
    partner_a: torch.Tensor  # [R, A] int32: the match of a token that is kept, -1 of others
    similarity_a: torch.Tensor  # [R, A] float32: the cosine of a token's match
    partner_b: torch.Tensor  # [R, B]
    similarity_b: torch.Tensor  # [R, B]
    scale_a: torch.Tensor  # [S, A] float32: what makes a token's norm 1
    scale_b: torch.Tensor  # [T, B]
