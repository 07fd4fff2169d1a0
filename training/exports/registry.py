"""Libraries that export.py writes for: each a title and a lazily imported function."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from patchmill.training.exports.encoder import Encoder
    from patchmill.training.exports.written import Export


class Library(NamedTuple):
    title: str
    module: str  # in this folder

    def export(self, encoder: Encoder) -> Export:
        module = importlib.import_module(f"patchmill.training.exports.{self.module}")
        export: Export = module.export(encoder)
        return export


LIBRARIES = {
    "timm": Library("timm 1.0.16 or newer, as a local-dir: model", "to_timm"),
    "torchvision": Library("torchvision's ResNets and VisionTransformer", "to_torchvision"),
    "hf": Library("transformers' ResNetModel and ViTModel", "to_hf"),
    "detectron2": Library("detectron2's ResNets, as MODEL.WEIGHTS", "to_detectron2"),
    "safetensors": Library("only the weights, of any backbone", "to_safetensors"),
}
