"""Network input from decoded pixels: normalised as in training, and padded to whole patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchmill.training.config.recipes import training_recipe
from patchmill.training.evaluation.segment.labelled import IGNORED
from patchmill.training.evaluation.segment.views import pad_to_multiple

if TYPE_CHECKING:
    from patchmill.training.evaluation.trained_run import TrainedRun


@dataclass(frozen=True)
class Pixels:
    mean: tuple[float, ...]
    std: tuple[float, ...]
    multiple: int  # sides are padded to multiples of this: the stride of the last map
    device: torch.device
    amp: torch.dtype | None = None

    @classmethod
    def of(cls, run: TrainedRun, multiple: int) -> Pixels:
        views = training_recipe(run.config).views[0]
        return cls(tuple(views.mean), tuple(views.std), multiple, run.world.device, run.amp)

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """Convert uint8 [N, 3, H, W] to float32 on the device, padded with the mean colour."""
        mean, std = (
            torch.tensor(values, device=self.device)[:, None, None]
            for values in (self.mean, self.std)
        )
        scaled = images.as_subclass(torch.Tensor).to(self.device, non_blocking=True).float() / 255
        return pad_to_multiple((scaled - mean) / std, self.multiple)

    def labels(self, masks: torch.Tensor) -> torch.Tensor:
        """Convert uint8 [N, H, W] to int64 on the device, padded with IGNORED."""
        labels = masks.as_subclass(torch.Tensor).to(self.device, non_blocking=True)
        return pad_to_multiple(labels, self.multiple, IGNORED).long()

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.amp, enabled=self.amp is not None)
