"""A folder that timm loads as local-dir:PATH: config.json and model.safetensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from patchmill.loaders.recipe import Views
from patchmill.loaders.recipe_parts import Centre
from patchmill.training.exports import resnets, vits
from patchmill.training.exports.encoder import Encoder, difference, weights
from patchmill.training.exports.written import Export


def export(encoder: Encoder) -> Export:
    network = encoder.timm_model("timm")
    tensors, options = weights(network), _options(network)
    small_stem = resnets.has_cifar_stem(network)
    _check_builds(encoder, tensors, options, small_stem)
    config = {
        "architecture": encoder.name,
        "num_classes": 0,
        "num_features": network.num_features,
        "model_args": options,
        "pretrained_cfg": _pretrained_cfg(network, encoder.view, encoder.size),
        "patchmill": encoder.facts,
    }
    files = {"model.safetensors": tensors, "config.json": config}
    if not small_stem:
        lines = [
            "import timm",
            'model = timm.create_model("local-dir:{out}", pretrained=True).eval()',
        ]
        notes = [*encoder.notes, *vits.position_notes(network, encoder.size)]
        return Export(files, [*lines, "h = model(images)"], notes)
    note = (
        "timm's own model starts with a 7 x 7 convolution and pooling, this one with the stem for "
        "small images: the lines below change that before they load the weights"
    )
    lines = [
        "import timm, torch",
        "from safetensors.torch import load_file",
        f'model = timm.create_model("{encoder.name}", num_classes=0).eval()',
        *resnets.cifar_stem_lines(network),
        'model.load_state_dict(load_file("{out}/model.safetensors"))',
        "h = model(images)",
    ]
    return Export(files, lines, [*encoder.notes, note])


def _options(network: Any) -> dict[str, Any]:
    """Return arguments of timm.create_model that a ViT's name does not imply."""
    if not vits.is_vit(network):
        return {}
    (size, _), (patch, _) = network.patch_embed.img_size, network.patch_embed.patch_size
    depth = len(network.blocks)
    options = {"img_size": size, "patch_size": patch, "depth": depth, "dynamic_img_size": True}
    if network.global_pool == "avg" and isinstance(network.fc_norm, nn.Identity):
        options |= {"global_pool": "avg", "fc_norm": False}  # the norm comes before the mean
    return options


def _pretrained_cfg(network: Any, view: Views, size: int) -> dict[str, Any]:
    """Return preprocessing and layer names in the format of timm's pretrained_cfg."""
    names = {k: v for k, v in network.default_cfg.items() if k in ("first_conv", "classifier")}
    crop = view.size / view.crop.short_side if isinstance(view.crop, Centre) else 1.0
    return {
        "input_size": [3, size, size],
        "num_classes": 0,
        "mean": list(view.mean),
        "std": list(view.std),
        "interpolation": view.interpolation,
        "crop_pct": round(crop, 4),
        "crop_mode": "center",
        "custom_load": False,
        **names,
    }


def _check_builds(
    encoder: Encoder, tensors: dict[str, torch.Tensor], options: dict[str, Any], small_stem: bool
) -> None:
    """Raise a MillError unless timm by itself builds a network that these weights fit."""
    import timm

    plain = timm.create_model(encoder.name, num_classes=0, **options).state_dict()
    if small_stem:
        plain["conv1.weight"] = tensors["conv1.weight"]
    if reason := difference(tensors, plain):
        raise encoder.unsupported("timm", f"{reason}, unlike timm's own")
