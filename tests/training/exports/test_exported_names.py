"""Names of weights by each library's conventions, written out independently."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers_exports import RESNET, VIT, assert_same_features, encoder, exported, images
from torch.nn import functional as F

from patchmill.training.exports import to_detectron2, to_hf, to_torchvision, vits

MODEL = {  # timm -> detectron2, transformers
    "conv1.weight": ("stem.conv1.weight", "embedder.embedder.convolution.weight"),
    "bn1.bias": ("stem.conv1.norm.bias", "embedder.embedder.normalization.bias"),
    "layer1.0.conv1.weight": (
        "res2.0.conv1.weight",
        "encoder.stages.0.layers.0.layer.0.convolution.weight",
    ),
    "layer3.11.bn3.running_var": (
        "res4.11.conv3.norm.running_var",
        "encoder.stages.2.layers.11.layer.2.normalization.running_var",
    ),
    "layer4.0.downsample.0.weight": (
        "res5.0.shortcut.weight",
        "encoder.stages.3.layers.0.shortcut.convolution.weight",
    ),
    "layer4.0.downsample.1.weight": (
        "res5.0.shortcut.norm.weight",
        "encoder.stages.3.layers.0.shortcut.normalization.weight",
    ),
}


@pytest.mark.parametrize("name", MODEL)
def test_names_of_a_resnets_weights(name: str):
    assert (to_detectron2.key_of(name), to_hf.resnet_key(name)) == MODEL[name]


def test_a_vits_attention_is_split_for_transformers_and_whole_for_torchvision():
    vit = vits.read(encoder(**VIT), "a test")
    hf, torchvision = to_hf.vit_weights(vit), to_torchvision.vit_weights(vit)
    assert vit.width == 192 and len(hf) == 4 + 2 + 2 * 16 and len(torchvision) == 4 + 2 + 2 * 12
    rows = vit.weights["blocks.1.attn.qkv.weight"]
    prefix = "encoder.layer.1.attention.attention"
    assert torch.equal(hf[f"{prefix}.query.weight"], rows[:192])
    assert torch.equal(hf[f"{prefix}.key.weight"], rows[192:384])
    assert torch.equal(hf[f"{prefix}.value.weight"], rows[384:])
    assert to_hf.export(encoder(**VIT)).files["config.json"]["layer_norm_eps"] == 1e-6
    whole = torchvision["encoder.layers.encoder_layer_1.self_attention.in_proj_weight"]
    assert torch.equal(whole, rows)


def test_detectron2_resnet50(tmp_path: Path):
    """Names and shapes of the published R-50: stem, then stages of 3, 4, 6 and 3 blocks."""
    expected = {"stem.conv1.weight": (64, 3, 7, 7), **_norm("stem.conv1", 64)}
    inputs = 64
    for stage, (blocks, inner) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], 2):
        for block in range(blocks):
            name, width = f"res{stage}.{block}", 4 * inner
            expected[f"{name}.conv1.weight"] = (inner, inputs, 1, 1)
            expected[f"{name}.conv2.weight"] = (inner, inner, 3, 3)
            expected[f"{name}.conv3.weight"] = (width, inner, 1, 1)
            expected |= _norm(f"{name}.conv1", inner) | _norm(f"{name}.conv2", inner)
            expected |= _norm(f"{name}.conv3", width)
            if block == 0:
                expected[f"{name}.shortcut.weight"] = (width, inputs, 1, 1)
                expected |= _norm(f"{name}.shortcut", width)
            inputs = width
    lines = exported(encoder(name="resnet50", stem="imagenet"), "detectron2", tmp_path)
    saved = torch.load(tmp_path / "model.pth", weights_only=True)
    shapes = {
        key: tuple(tensor.shape)
        for key, tensor in saved["model"].items()
        if not key.endswith("num_batches_tracked")
    }
    assert shapes == expected
    assert saved["matching_heuristics"] is True and saved["__author__"] == "patchmill"
    text = "\n".join(lines)
    assert "cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]" in text
    assert "cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]" in text
    assert "DEPTH, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = 50, False" in text and '"RGB"' in text


def _norm(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{prefix}.norm.{part}": (width,) for part in parts}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_detectron2_computes_the_same_features(name: str, tmp_path: Path):
    """Compute its ResNet from the weights in the file, with the stride in 3 x 3 convolutions."""
    given = encoder(**{**RESNET, "name": name})
    exported(given, "detectron2", tmp_path)
    weights = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    with torch.no_grad():
        x = _conv(weights, "stem.conv1", images(), 2).relu()
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in (2, 3, 4, 5):
            blocks = {key.split(".")[1] for key in weights if key.startswith(f"res{stage}.")}
            for block in range(len(blocks)):
                x = _block(weights, f"res{stage}.{block}", x, 2 if stage > 2 and block == 0 else 1)
    assert_same_features(given, x.mean((2, 3)), images())


def _block(
    weights: dict[str, torch.Tensor], prefix: str, x: torch.Tensor, stride: int
) -> torch.Tensor:
    if f"{prefix}.conv3.weight" in weights:
        y = _conv(weights, f"{prefix}.conv1", x).relu()
        y = _conv(weights, f"{prefix}.conv2", y, stride).relu()
        y = _conv(weights, f"{prefix}.conv3", y)
    else:
        y = _conv(weights, f"{prefix}.conv1", x, stride).relu()
        y = _conv(weights, f"{prefix}.conv2", y)
    has_shortcut = f"{prefix}.shortcut.weight" in weights
    return (y + (_conv(weights, f"{prefix}.shortcut", x, stride) if has_shortcut else x)).relu()


def _conv(
    weights: dict[str, torch.Tensor], prefix: str, x: torch.Tensor, stride: int = 1
) -> torch.Tensor:
    kernel = weights[f"{prefix}.weight"]
    y = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    parts = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(y, *(weights[f"{prefix}.norm.{part}"] for part in parts), eps=1e-5)
