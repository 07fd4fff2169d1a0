"""What a run says of the machine that it runs on."""

from __future__ import annotations

import platform

import torch

from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import machine


def test_processors_and_versions():
    told = machine.described(World())
    assert "core" in told["machine"] and "ranks" not in told["machine"]
    assert told["versions"].startswith("patchmill ")
    assert told["versions"].endswith(
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )
    assert machine.described(World(size=4))["machine"].endswith(", 4 ranks")


def test_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    device = torch.device("cuda:0")
    assert machine.described(World(device=device))["machine"] == "NVIDIA H200"
    assert machine.described(World(size=8, device=device))["machine"] == "8 x NVIDIA H200"
