"""The evaluated backbone's own weights, for any network."""

from __future__ import annotations

from patchmill.training.exports.encoder import Encoder, weights
from patchmill.training.exports.written import Export


def export(encoder: Encoder) -> Export:
    files = {"model.safetensors": weights(encoder.backbone), "config.json": encoder.facts}
    lines = [
        "from safetensors.torch import load_file",
        'weights = load_file("{out}/model.safetensors")',
    ]
    return Export(files, lines)
