"""Libraries that export.py writes for: each a title and a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from patchmill.training.exports import (
    to_detectron2,
    to_hf,
    to_safetensors,
    to_timm,
    to_torchvision,
)
from patchmill.training.exports.encoder import Encoder
from patchmill.training.exports.written import Export


class Library(NamedTuple):
    title: str
    export: Callable[[Encoder], Export]


LIBRARIES = {
    "timm": Library("timm 1.0.16 or newer, as a local-dir: model", to_timm.export),
    "torchvision": Library("torchvision's ResNets and VisionTransformer", to_torchvision.export),
    "hf": Library("transformers' ResNetModel and ViTModel", to_hf.export),
    "detectron2": Library("detectron2's ResNets, as MODEL.WEIGHTS", to_detectron2.export),
    "safetensors": Library("the weights alone, of any backbone", to_safetensors.export),
}
