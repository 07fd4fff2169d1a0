"""The device of a run: its autocast dtype, and its description for status.json."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import patchmill
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.threads import available_cores

if TYPE_CHECKING:
    from patchmill.training.config.settings import Train
    from patchmill.training.ranks.distributed import World


def amp_dtype(settings: Train, device: torch.device) -> torch.dtype | None:
    """Autocast dtype; None for float32 throughout."""
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if settings.precision == "bf16" and not has_bf16:
        raise MillError(
            f"{torch.cuda.get_device_name(device)} does not compute in bf16: "
            "use train.precision=fp16, fp32 or auto"
        )
    if settings.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and has_bf16 else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[settings.precision]


def describe(world: World) -> dict[str, str]:
    """`{"machine": "8 x NVIDIA H200", "versions": "patchmill 0.1, torch 2.8, Python 3.12.3"}`."""
    machine = _gpus(world) if world.device.type == "cuda" else _processor()
    if world.device.type != "cuda" and world.size > 1:
        machine += f", {world.size} ranks"
    return {
        "machine": machine,
        "versions": f"patchmill {patchmill.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }


def parse_machine(machine: str) -> tuple[str, int]:
    """Parse the device and ranks from `describe`'s machine: `("NVIDIA H200", 8)`."""
    if match := re.fullmatch(r"(\d+) x (.+)", machine):
        return match[2], int(match[1])
    if match := re.fullmatch(r"(.+), (\d+) ranks", machine):
        return match[1], int(match[2])
    return machine, 1


def _gpus(world: World) -> str:
    name = torch.cuda.get_device_name(world.device)
    return name if world.size == 1 else f"{world.size} x {name}"


def _processor() -> str:
    cores = available_cores()
    return f"{_model()}, {cores} core{'s' if cores != 1 else ''}"


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return name.replace("(R)", "").replace("(TM)", "")
