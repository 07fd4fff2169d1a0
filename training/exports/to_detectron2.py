"""Weights under detectron2's names, in a file of tensors that its DetectionCheckpointer reads."""

from __future__ import annotations

import re
from collections.abc import Callable

from patchmill.training.exports import resnets
from patchmill.training.exports.encoder import Encoder
from patchmill.training.exports.written import Export

# Blocks in each stage -> detectron2's MODEL.RESNETS.DEPTH, by type of block.
DEPTHS: dict[str, dict[tuple[int, ...], int]] = {
    "basic": {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34},
    "bottleneck": {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152},
}
RENAMED: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^(?!layer)", "stem."),
    (r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}"),
    (r"\bbn(\d)", r"conv\1.norm"),
    (r"downsample\.0", "shortcut"),
    (r"downsample\.1", "shortcut.norm"),
]


def export(encoder: Encoder) -> Export:
    resnet = resnets.read(encoder, "detectron2")
    depth = DEPTHS[resnet.block].get(tuple(resnet.depths))
    if depth is None:
        raise encoder.unsupported("detectron2", "its ResNets have 18, 34, 50, 101 or 152 layers")
    content = {
        "model": {key_of(name): tensor for name, tensor in resnet.weights.items()},
        "__author__": "patchmill",
        "matching_heuristics": True,
    }
    lines = [
        "from detectron2.config import get_cfg",
        "cfg = get_cfg()",
        'cfg.MODEL.WEIGHTS, cfg.INPUT.FORMAT = "{out}/model.pth", "RGB"',
        f"cfg.MODEL.PIXEL_MEAN = {_of_255(encoder.view.mean)}",
        f"cfg.MODEL.PIXEL_STD = {_of_255(encoder.view.std)}",
        f"cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = {depth}, False",
    ]
    if resnet.block == "basic":
        lines.append("cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64")
    if resnet.groups > 1 or resnet.inner != 64:
        width = f"{resnet.groups}, {resnet.inner // resnet.groups}"
        lines.append(f"cfg.MODEL.RESNETS.NUM_GROUPS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = {width}")
    files = {"model.pth": content, "config.json": encoder.facts}
    return Export(files, lines, encoder.notes)


def key_of(name: str) -> str:
    """Rename layer1.0.bn2.weight to res2.0.conv2.norm.weight, like MoCo's detectron2 conversion."""
    for pattern, new in RENAMED:
        name = re.sub(pattern, new, name)
    return name


def _of_255(values: tuple[float, ...]) -> list[float]:
    return [round(255 * value, 3) for value in values]
