"""Training of a head, and of its backbone unless that is frozen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.training.evaluation.segment.batches import Batch
from patchmill.training.evaluation.segment.budget import Budget
from patchmill.training.evaluation.segment.labelled import IGNORED
from patchmill.training.evaluation.segment.pixels import Pixels
from patchmill.training.evaluation.segment.segmenter import Segmenter
from patchmill.training.optim import optimizers, schedules

CHECK_EVERY = 50  # iterations between checks of the loss, which wait for the device
NO_DECAY = ("pos_embed", "cls_token")


def train(
    segmenter: Segmenter, batches: Iterable[Batch], budget: Budget, pixels: Pixels, title: str
) -> None:
    """Train with AdamW, a warm-up and a linear decay to 0, on the mean cross-entropy of all pixels.

    Pixels without a label count in the mean with a loss of 0, as in mmsegmentation.
    """
    optim, optimiser = budget.optim(), torch.optim.AdamW(groups(segmenter), lr=0.0)
    scaler = torch.amp.GradScaler(pixels.device.type, enabled=pixels.amp is torch.float16)
    segmenter.train()
    with track(title, budget.iterations, unit="iterations") as advance:
        for iteration, batch in enumerate(batches):
            rates = schedules.rates_at(optim, 256, iteration, budget.iterations, 1)
            optimizers.set_rates(optimiser, rates)
            images, labels = pixels.images(batch.images), pixels.labels(batch.masks)
            with pixels.autocast():
                scores = segmenter(images)
            loss = cross_entropy(scores, labels, ignore_index=IGNORED, reduction="sum")
            loss = loss / labels.numel()
            optimiser.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            if (iteration + 1) % CHECK_EVERY == 0 and not torch.isfinite(loss):
                raise MillError(
                    f"the loss of the head is {loss.item()} at iteration {iteration}: use a "
                    f"smaller lr= than {budget.lr:g}"
                )
            advance(1)
    segmenter.eval()


def groups(segmenter: nn.Module) -> list[dict[str, Any]]:
    """Group parameters for `set_rates`: no weight decay on norms, positions and class tokens."""
    norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    undecayed = {
        id(param)
        for module in segmenter.modules()
        for name, param in module.named_parameters(recurse=False)
        if isinstance(module, norms) or name in NO_DECAY
    }
    trained = [param for param in segmenter.parameters() if param.requires_grad]
    split = {
        decays: [param for param in trained if (id(param) not in undecayed) == decays]
        for decays in (True, False)
    }
    return [{"params": params, "decays": decays} for decays, params in split.items() if params]
