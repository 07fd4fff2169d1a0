"""Weights under torchvision's names, for its ResNets and its VisionTransformer."""

from __future__ import annotations

import torch

from patchmill.training.exports import resnets, vits
from patchmill.training.exports.encoder import Encoder, difference
from patchmill.training.exports.written import Export

LOAD = 'model.load_state_dict(torch.load("{out}/model.pth", weights_only=True))'


def export(encoder: Encoder) -> Export:
    is_vit = vits.is_vit(encoder.timm_model("torchvision"))
    tensors, lines = _vit(encoder) if is_vit else _resnet(encoder)
    lines = ["import torch, torchvision", *lines, LOAD, "h = model(images)"]
    files = {"model.pth": tensors, "config.json": encoder.facts}
    return Export(files, lines, encoder.notes)


# ----------------------------------------------------------------------------------------- ResNets


def _resnet(encoder: Encoder) -> tuple[dict[str, torch.Tensor], list[str]]:
    resnet = resnets.read(encoder, "torchvision", small_stem=True)
    _check_fits(encoder, resnet.weights)
    lines = [
        f"model = torchvision.models.{encoder.name}().eval()",
        "model.fc = torch.nn.Identity()",
    ]
    network = encoder.timm_model("torchvision")
    if resnets.has_cifar_stem(network):
        lines += resnets.cifar_stem_lines(network)
    return resnet.weights, lines


def _check_fits(encoder: Encoder, tensors: dict[str, torch.Tensor]) -> None:
    """Raise a MillError unless torchvision has this network under this name."""
    from torchvision import models

    if encoder.name not in models.list_models(models):
        raise encoder.unsupported("torchvision", "it has no model of that name")
    with torch.device("meta"):
        expected = models.get_model(encoder.name).state_dict()
    expected = {k: v for k, v in expected.items() if not k.startswith("fc.")}
    expected["conv1.weight"] = tensors["conv1.weight"]  # changed by the small stem
    if reason := difference(tensors, expected):
        raise encoder.unsupported("torchvision", f"{reason}, unlike torchvision's own")


# -------------------------------------------------------------------------------------------- ViTs

_EPS = 1e-6  # of torchvision's layer norms
_BLOCK = {
    "norm1": "ln_1",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}


def _vit(encoder: Encoder) -> tuple[dict[str, torch.Tensor], list[str]]:
    vit = vits.read(encoder, "torchvision")
    if vit.pool != "token":
        raise encoder.unsupported("torchvision", "its h is a mean of tokens (model.pool=mean)")
    if vit.eps != _EPS:
        raise encoder.unsupported("torchvision", f"its layer norms have an epsilon of {vit.eps:g}")
    arguments = (
        f"image_size={vit.size}, patch_size={vit.patch}, num_layers={vit.depth}, "
        f"num_heads={vit.heads}, hidden_dim={vit.width}, mlp_dim={vit.hidden}"
    )
    lines = [
        f"model = torchvision.models.VisionTransformer({arguments}).eval()",
        "model.heads = torch.nn.Identity()",
    ]
    return vit_weights(vit), lines


def vit_weights(vit: vits.PlainViT) -> dict[str, torch.Tensor]:
    old = vit.weights
    new = {"class_token": old["cls_token"], "encoder.pos_embedding": old["pos_embed"]}
    for kind in ("weight", "bias"):
        new[f"conv_proj.{kind}"] = old[f"patch_embed.proj.{kind}"]
        new[f"encoder.ln.{kind}"] = old[f"norm.{kind}"]
    for number in range(vit.depth):
        block, prefix = vit.block(number), f"encoder.layers.encoder_layer_{number}"
        attention = f"{prefix}.self_attention.in_proj"
        new[f"{attention}_weight"] = block["attn.qkv.weight"]
        new[f"{attention}_bias"] = block.get("attn.qkv.bias", torch.zeros(3 * vit.width))
        for name, other in _BLOCK.items():
            for kind in ("weight", "bias"):
                new[f"{prefix}.{other}.{kind}"] = block[f"{name}.{kind}"]
    return new
