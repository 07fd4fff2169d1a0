"""DINO's vision transformer: timm's ViT with position embeddings resized as in DINO's code."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F


class DinoViT(VisionTransformer):  # with a class token and position embeddings
    """A ViT that resizes position embeddings for other image sizes as DINO's released code does.

    facebookresearch/dino, vision_transformer.py: bicubic without antialiasing, at a scale of
    (new + 0.1) / old.
    """

    def _pos_embed(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = x.shape
        assert self.pos_embed is not None and self.cls_token is not None
        rows, columns = self.patch_embed.grid_size
        prefix, positions = self.pos_embed.split([self.num_prefix_tokens, rows * columns], dim=1)
        if (height, width) != (rows, columns):
            maps = positions.float().unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
            scale = ((height + 0.1) / rows, (width + 0.1) / columns)
            resized = F.interpolate(maps, scale_factor=scale, mode="bicubic")
            positions = resized.flatten(2).mT.to(positions.dtype)
        tokens = x.reshape(batch, height * width, channels) + positions
        first = self.cls_token.expand(batch, -1, -1) + prefix
        return self.pos_drop(torch.cat([first, tokens], dim=1))
