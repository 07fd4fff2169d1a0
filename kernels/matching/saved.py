"""`Saved`: tensors that the backward pass of `correspond` needs."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Saved(NamedTuple):
    match_a: torch.Tensor  # [R, A] int32: a token's best match if it counts, else -1
    similarity_a: torch.Tensor  # [R, A] float32: the cosine of the best match
    match_b: torch.Tensor  # [R, B]
    similarity_b: torch.Tensor  # [R, B]
    inverse_norm_a: torch.Tensor  # [S, A] float32: 1 / norm of each token
    inverse_norm_b: torch.Tensor  # [T, B]
