"""Attention pooling: a transformer that summarises a set of vectors, and positions on a grid."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from patchmill.loaders.common.errors import MillError

STD = 0.02  # of the initial values of learnt tokens and positions
TABLE = 16  # grid cells up to which "auto" gives each cell its own position vector


class AttentionPooling(nn.Module):
    """A transformer's output at u0, a learnt token before the set: [N, T, width] -> [N, width].

    Unless the vectors contain positions, their order makes no difference. The output is initialised
    to a norm of 1, so that scores start near 1. With a norm of the square root of the width, scores
    are so far apart that the vectors first become similar and lose most of their dimensions.
    """

    def __init__(
        self, width: int, *, blocks: int, heads: int, hidden: int, dropout: float, pre_norm: bool
    ) -> None:
        super().__init__()
        if width % heads:
            raise MillError(
                f"method.heads={heads} must divide the patch network's {width} features: use "
                f"{next(smaller for smaller in range(heads, 0, -1) if width % smaller == 0)}"
            )
        self.u0 = nn.Parameter(STD * torch.randn(1, 1, width))
        layers: list[nn.Module] = [  # nn.TransformerEncoder would start with equal layers
            nn.TransformerEncoderLayer(
                width, heads, hidden, dropout, "gelu", batch_first=True, norm_first=pre_norm
            )
            for _ in range(blocks)
        ]
        self.layers = nn.Sequential(*layers, *([nn.LayerNorm(width)] if pre_norm else []))
        last: Any = self.layers[-1]
        nn.init.constant_((last if pre_norm else last.norm2).weight, width**-0.5)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        u0 = self.u0.expand(len(vectors), -1, -1)
        return self.layers(torch.cat([u0, vectors], 1))[:, 0]


class GridPositions(nn.Module):
    """Learnt position vectors of a grid's cells, row by row: [rows * columns, width].

    table has a vector for each cell; rows_columns adds a vector for the row and one for the column.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        width: int,
        kind: Literal["auto", "table", "rows_columns"] = "auto",
    ) -> None:
        super().__init__()
        if kind == "auto":
            kind = "table" if rows * columns <= TABLE else "rows_columns"
        shapes = [(rows, columns)] if kind == "table" else [(rows, 1), (1, columns)]
        self.parts = nn.ParameterList(STD * torch.randn(*shape, width) for shape in shapes)

    def forward(self) -> torch.Tensor:
        total = self.parts[0] if len(self.parts) == 1 else self.parts[0] + self.parts[1]
        return total.flatten(0, 1)
