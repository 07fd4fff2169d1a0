"""Description of the machine a run uses."""

from __future__ import annotations

import platform

import torch

from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import device


def test_processors_and_versions():
    told = device.describe(World())
    assert "core" in told["machine"] and "ranks" not in told["machine"]
    assert told["versions"].startswith("patchmill ")
    assert told["versions"].endswith(
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )
    assert device.describe(World(size=4))["machine"].endswith(", 4 ranks")


def test_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    gpu = torch.device("cuda:0")
    assert device.describe(World(device=gpu))["machine"] == "NVIDIA H200"
    assert device.describe(World(size=8, device=gpu))["machine"] == "8 x NVIDIA H200"
