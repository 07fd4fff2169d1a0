"""Plain ViTs, which torchvision and transformers also have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from patchmill.training.exports.encoder import Encoder, weights

_KEY = re.compile(
    r"cls_token|pos_embed|patch_embed\.proj\.(weight|bias)|norm\.(weight|bias)"
    r"|blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
)


@dataclass(frozen=True)
class PlainViT:
    size: int  # side of an image in pixels
    patch: int  # side of a patch in pixels
    depth: int
    heads: int
    width: int
    hidden: int  # width inside the MLPs
    eps: float  # of the layer norms
    qkv_bias: bool
    pool: Literal["token", "mean"]  # h: the class token, or the mean of the others
    weights: dict[str, torch.Tensor]  # by timm's names

    def block(self, number: int) -> dict[str, torch.Tensor]:
        prefix = f"blocks.{number}."
        return {k.removeprefix(prefix): v for k, v in self.weights.items() if k.startswith(prefix)}


def is_vit(network: nn.Module) -> bool:
    from timm.models.vision_transformer import VisionTransformer

    return isinstance(network, VisionTransformer)


def position_notes(network: nn.Module, size: int) -> list[str]:
    """Note if a library resizes position embeddings unlike the network itself."""
    from patchmill.training.nets.dino_vit import DinoViT

    if not isinstance(network, DinoViT):
        return []
    return [
        f"for images that are not {size} x {size}, position embeddings are resized in the "
        "library's own way, not in DINO's"
    ]


def read(encoder: Encoder, library: str) -> PlainViT:
    """Read a ViT's structure and weights; raise a MillError if it is not a plain one."""
    network: Any = encoder.timm_model(library)
    if reason := _difference(network):
        raise encoder.unsupported(library, reason)
    tensors = weights(network)
    embedding, first = network.patch_embed, network.blocks[0]
    (size, _), (patch, _) = embedding.img_size, embedding.patch_size
    return PlainViT(
        size=size,
        patch=patch,
        depth=len(network.blocks),
        heads=first.attn.num_heads,
        width=tensors["cls_token"].shape[-1],
        hidden=tensors["blocks.0.mlp.fc1.weight"].shape[0],
        eps=first.norm1.eps,
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
        pool="mean" if network.global_pool == "avg" else "token",
        weights=tensors,
    )


def _difference(network: Any) -> str:
    """Describe how a network differs from a plain ViT; empty if it does not."""
    if not is_vit(network):
        return "it is neither a ResNet nor a ViT"
    if other := [key for key in network.state_dict() if not _KEY.fullmatch(key)]:
        return f"it is not a plain ViT, as it has {other[0]}"
    (height, width), grid = network.patch_embed.img_size, network.patch_embed.grid_size
    (tall, wide), gelu = network.patch_embed.patch_size, network.blocks[0].mlp.act
    eps = {module.eps for module in network.modules() if isinstance(module, nn.LayerNorm)}
    for holds, reason in [
        (network.global_pool in ("token", "avg"), "its h is neither a token nor a mean"),
        (network.pos_embed.shape[1] == grid[0] * grid[1] + 1, "its class token has no position"),
        (height == width and tall == wide, "its images or patches are not square"),
        (isinstance(gelu, nn.GELU) and gelu.approximate == "none", "its activation is not GELU"),
        (len(eps) == 1, "the epsilons of its layer norms differ"),
    ]:
        if not holds:
            return reason
    return ""
