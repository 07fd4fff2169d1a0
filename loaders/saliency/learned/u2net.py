"""The small U2-Net: nested U-structures (Qin, Zhang, Huang, Dehghan, Zaiane, Jagersand 2020).

Modules are named as in the authors' release, so that its weights load.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MID, OUT = 16, 64  # channels inside an RSU block, and between blocks
LEVELS = (7, 6, 5, 4)  # of the pooling RSU blocks, fine to coarse; two dilated ones follow


class ConvNormAct(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, channels: int, out: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn_s1(self.conv_s1(x)))


class ResidualUBlock(nn.Module):
    """RSU: a residual U-block, which pools between levels or, if `dilated`, grows the dilation."""

    def __init__(self, levels: int, channels: int, dilated: bool = False) -> None:
        super().__init__()
        self.levels, self.dilated = levels, dilated
        self.rebnconvin = ConvNormAct(channels, OUT)
        for i in range(1, levels + 1):
            bottom = 2 if i == levels else 1
            dilation = 2 ** (i - 1) if dilated else bottom
            self.add_module(f"rebnconv{i}", ConvNormAct(OUT if i == 1 else MID, MID, dilation))
        for i in range(levels - 1, 0, -1):
            dilation = 2 ** (i - 1) if dilated else 1
            out = OUT if i == 1 else MID
            self.add_module(f"rebnconv{i}d", ConvNormAct(2 * MID, out, dilation))

    def forward(self, x: Tensor) -> Tensor:
        x = self.rebnconvin(x)
        down = [x]
        for i in range(1, self.levels + 1):
            pools = not self.dilated and 1 < i < self.levels
            down.append(self._block(f"rebnconv{i}", downsample(down[-1]) if pools else down[-1]))
        up = down[self.levels]
        for i in range(self.levels - 1, 0, -1):
            up = self._block(f"rebnconv{i}d", torch.cat((upsample_like(up, down[i]), down[i]), 1))
        return up + x

    def _block(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)


class U2Net(nn.Module):
    """[B, 3, H, W] normalised RGB to seven [B, 1, H, W] logit maps: fused, then the sides."""

    def __init__(self) -> None:
        super().__init__()
        for i, levels in enumerate((*LEVELS, 4, 4), start=1):
            self.add_module(
                f"stage{i}", ResidualUBlock(levels, 3 if i == 1 else OUT, dilated=i > 4)
            )
            self.add_module(f"side{i}", nn.Conv2d(OUT, 1, 3, padding=1))
            if i < 6:
                self.add_module(f"stage{i}d", ResidualUBlock(levels, 2 * OUT, dilated=i > 4))
        self.outconv = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        down: list[Tensor] = []
        for i in range(1, 7):
            finer = downsample(down[-1]) if down else x
            down.append(self.get_submodule(f"stage{i}")(finer))
        up = {6: down[5]}
        for i in range(5, 0, -1):
            joined = torch.cat((upsample_like(up[i + 1], down[i - 1]), down[i - 1]), 1)
            up[i] = self.get_submodule(f"stage{i}d")(joined)
        sides = [upsample_like(self.get_submodule(f"side{i}")(up[i]), x) for i in range(1, 7)]
        return [self.outconv(torch.cat(sides, 1)), *sides]


def downsample(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


def upsample_like(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def load_state(state: dict[str, Tensor]) -> U2Net:
    """A network with these weights; RuntimeError if they belong to another architecture."""
    network = U2Net()
    network.load_state_dict(OrderedDict(state))
    return network.eval()
