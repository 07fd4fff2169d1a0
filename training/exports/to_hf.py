"""A folder that transformers loads: config.json, model.safetensors, preprocessor_config.json.

Weights have the names of the models on the Hub, which all versions of transformers read.
"""

from __future__ import annotations

from typing import Any

import torch

from patchmill.loaders.recipe import Views
from patchmill.loaders.recipe_parts import Centre
from patchmill.training.exports import resnets, vits
from patchmill.training.exports.encoder import Encoder
from patchmill.training.exports.written import Export

RESAMPLE = {"bilinear": 2, "bicubic": 3}  # PIL's numbers


def export(encoder: Encoder) -> Export:
    is_vit = vits.is_vit(encoder.timm_model("transformers"))
    config, tensors, lines = _vit(encoder) if is_vit else _resnet(encoder)
    files = {
        "model.safetensors": tensors,
        "preprocessor_config.json": _preprocessor(encoder.view),
        "config.json": {**config, "patchmill": encoder.facts},
    }
    notes = [*encoder.notes]
    if is_vit:
        notes.append(
            "for images of another size, pass interpolate_pos_encoding=True; transformers resizes "
            "position embeddings in its own way"
        )
    return Export(files, ["from transformers import AutoModel", *lines], notes)


def _preprocessor(view: Views) -> dict[str, Any]:
    """Describe the evaluation view: a resize of the short side, a centre crop, mean and std."""
    short_side = view.crop.short_side if isinstance(view.crop, Centre) else view.size
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": short_side},
        "resample": RESAMPLE[view.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": view.size, "width": view.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(view.mean),
        "image_std": list(view.std),
        "do_convert_rgb": True,
    }


# ----------------------------------------------------------------------------------------- ResNets


def _resnet(encoder: Encoder) -> tuple[dict[str, Any], dict[str, torch.Tensor], list[str]]:
    resnet = resnets.read(encoder, "transformers")
    ratio = resnet.channels[0] / resnet.inner
    if ratio != (4 if resnet.block == "bottleneck" else 1) or resnet.groups > 1:
        raise encoder.unsupported("transformers", "its blocks are wider than a plain ResNet's")
    config = {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": resnet.weights["conv1.weight"].shape[0],
        "hidden_sizes": resnet.channels,
        "depths": resnet.depths,
        "layer_type": resnet.block,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
    lines = [
        'model = AutoModel.from_pretrained("{out}")',
        "h = model(images).pooler_output.flatten(1)",
    ]
    return config, {resnet_key(k): v for k, v in resnet.weights.items()}, lines


def resnet_key(key: str) -> str:
    """Rename layer1.0.bn2.weight to encoder.stages.0.layers.0.layer.1.normalization.weight."""
    *parts, kind = key.split(".")
    if len(parts) == 1:
        return f"embedder.embedder.{_kind_of_layer(parts[0])}.{kind}"
    stage, block, name, *index = parts
    prefix = f"encoder.stages.{int(stage[-1]) - 1}.layers.{block}"
    if name == "downsample":
        return f"{prefix}.shortcut.{('convolution', 'normalization')[int(index[0])]}.{kind}"
    return f"{prefix}.layer.{int(name[-1]) - 1}.{_kind_of_layer(name)}.{kind}"


def _kind_of_layer(name: str) -> str:
    return "convolution" if name.startswith("conv") else "normalization"


# -------------------------------------------------------------------------------------------- ViTs

_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _vit(encoder: Encoder) -> tuple[dict[str, Any], dict[str, torch.Tensor], list[str]]:
    vit = vits.read(encoder, "transformers")
    config = {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "num_channels": 3,
        "image_size": vit.size,
        "patch_size": vit.patch,
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.heads,
        "hidden_size": vit.width,
        "intermediate_size": vit.hidden,
        "hidden_act": "gelu",
        "layer_norm_eps": vit.eps,
        "qkv_bias": vit.qkv_bias,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    h = "[:, 0]" if vit.pool == "token" else "[:, 1:].mean(1)"
    lines = [
        'model = AutoModel.from_pretrained("{out}", add_pooling_layer=False)',
        f"h = model(images).last_hidden_state{h}",
    ]
    return config, vit_weights(vit), lines


def vit_weights(vit: vits.PlainViT) -> dict[str, torch.Tensor]:
    old = vit.weights
    new = {"embeddings.cls_token": old["cls_token"]}
    new["embeddings.position_embeddings"] = old["pos_embed"]
    for kind in ("weight", "bias"):
        new[f"embeddings.patch_embeddings.projection.{kind}"] = old[f"patch_embed.proj.{kind}"]
        new[f"layernorm.{kind}"] = old[f"norm.{kind}"]
    for number in range(vit.depth):
        block, prefix = vit.block(number), f"encoder.layer.{number}"
        for kind in ("weight", "bias") if vit.qkv_bias else ("weight",):
            rows = block[f"attn.qkv.{kind}"].chunk(3)
            for name, part in zip(("query", "key", "value"), rows, strict=True):
                new[f"{prefix}.attention.attention.{name}.{kind}"] = part.contiguous()
        for name, other in _BLOCK.items():
            for kind in ("weight", "bias"):
                new[f"{prefix}.{other}.{kind}"] = block[f"{name}.{kind}"]
    return new
