"""What a run runs on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import patchmill

if TYPE_CHECKING:
    from patchmill.training.ranks.distributed import World


def described(world: World) -> dict[str, str]:
    """`{"machine": "8 x NVIDIA H200", "versions": "patchmill 0.1, torch 2.8, Python 3.12.3"}`."""
    device = _gpus(world) if world.device.type == "cuda" else _processor()
    if world.device.type != "cuda" and world.size > 1:
        device += f", {world.size} ranks"
    return {
        "machine": device,
        "versions": f"patchmill {patchmill.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }


def _gpus(world: World) -> str:
    name = torch.cuda.get_device_name(world.device)
    return name if world.size == 1 else f"{world.size} x {name}"


def _processor() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_model()}, {cores} core{'s' if cores != 1 else ''}"


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return name.replace("(R)", "").replace("(TM)", "")
