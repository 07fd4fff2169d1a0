"""In which numbers a network computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.training.config.settings import Train


def of(settings: Train, device: torch.device) -> torch.dtype | None:
    """What autocast computes in; None for float32 throughout."""
    able = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if settings.precision == "bf16" and not able:
        raise MillError(
            f"{torch.cuda.get_device_name(device)} does not compute in bf16: "
            "take train.precision=fp16, fp32 or auto"
        )
    if settings.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and able else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[settings.precision]
