"""Encoders with random weights, and the network that an export's own lines of Python load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchmill.loaders import presets
from patchmill.training.config.settings import Model
from patchmill.training.exports import written
from patchmill.training.exports.encoder import Encoder
from patchmill.training.exports.registry import LIBRARIES
from patchmill.training.nets import backbones

RESNET = {"name": "resnet18", "stem": "imagenet"}
VIT = {"name": "vit_tiny_patch16_224", "patch": 8, "depth": 2}
SIZE = 32


def encoder(size: int = SIZE, **settings: Any) -> Encoder:
    return of_network(backbones.build(Model(**settings), size), settings["name"], size)


def of_network(network: nn.Module, name: str, size: int = SIZE) -> Encoder:
    view = presets.eval(size=size, short_side=size + 5).views[0]
    return Encoder(shaken(network).eval(), name, size, view, {"architecture": name, "step": 3})


def shaken(network: nn.Module) -> nn.Module:
    """The network with no weight, bias or running statistic at its initial value."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                tensor += (0.1 if tensor.ndim < 2 else 0.01) * noise
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
    return network


def images(size: int = SIZE, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(2))


def exported(given: Encoder, library: str, out: Path) -> list[str]:
    """Write an export to `out`; the lines that load it."""
    export = LIBRARIES[library].export(given)
    written.write(export, out, force=False)
    return [line.replace("{out}", out.as_posix()) for line in export.load]


def loaded_features(lines: list[str], batch: torch.Tensor) -> torch.Tensor:
    """The h that the lines compute, from the images."""
    names: dict[str, Any] = {"images": batch}
    with torch.no_grad():
        exec("\n".join(lines), names)
    return names["h"]


def assert_same_features(given: Encoder, h: torch.Tensor, batch: torch.Tensor) -> None:
    with torch.no_grad():
        expected = given.timm_model("a test")(batch)
    assert expected.std() > 1e-2  # so that equality says something
    torch.testing.assert_close(h, expected, rtol=1e-5, atol=1e-5)
