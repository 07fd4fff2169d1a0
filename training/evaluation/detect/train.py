"""Training and running of a detector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import Advance
from patchmill.training.evaluation.detect.batches import Example
from patchmill.training.evaluation.detect.protocols import Protocol
from patchmill.training.optim import optimizers, schedules

MASK_THRESHOLD = 0.5  # minimum probability of a mask's pixels


class Detections(NamedTuple):
    """Detections in one image, best first."""

    boxes: np.ndarray  # float32 [N, 4]: x1, y1, x2, y2 in pixels
    labels: np.ndarray  # int64 [N], from 0
    scores: np.ndarray  # float32 [N]
    masks: list[dict[str, object]] | None  # RLE


class Machine(NamedTuple):
    device: torch.device
    amp: torch.dtype | None = None  # of autocast


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators; restore them afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def train(
    model: GeneralizedRCNN,
    batches: Iterable[list[Example]],
    protocol: Protocol,
    machine: Machine,
    advance: Advance = lambda images: None,
) -> list[float]:
    """Train all parameters that are not frozen; return the loss of each iteration."""
    optimiser = optimizers.build(protocol.optim, model)
    scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.amp is torch.float16)
    params = [param for param in model.parameters() if param.requires_grad]
    _train_mode(model)
    curve: list[float] = []
    for step, examples in enumerate(batches):
        rates = schedules.rates_at(protocol.optim, protocol.batch, step, protocol.total, 1)
        optimizers.set_rates(optimiser, rates)
        images, targets = zip(*(example.to(machine.device) for example in examples), strict=True)
        with torch.autocast(machine.device.type, machine.amp, enabled=machine.amp is not None):
            losses = model(list(images), list(targets))
        loss = torch.stack([value.float() for value in losses.values()]).sum()
        curve.append(_finite(loss.item(), step))
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        if protocol.optim.grad_clip:
            scaler.unscale_(optimiser)
            torch.nn.utils.clip_grad_norm_(params, protocol.optim.grad_clip)
        scaler.step(optimiser)
        scaler.update()
        advance(len(examples))
    return curve


@torch.no_grad()
def detect(
    model: GeneralizedRCNN,
    batches: Iterable[list[Example]],
    side: int,
    machine: Machine,
    advance: Advance = lambda images: None,
) -> list[Detections]:
    """Run the detector on each image, resized to a short side of `side` pixels."""
    model.eval()
    model.transform.min_size = (side,)
    detections = []
    for examples in batches:
        images = [example.to(machine.device)[0] for example in examples]
        with torch.autocast(machine.device.type, machine.amp, enabled=machine.amp is not None):
            outputs = model(images)
        detections += [_detections(output) for output in outputs]
        advance(len(examples))
    return detections


def _train_mode(model: nn.Module) -> None:
    """Set training mode, except for frozen modules: their batch-norm statistics stay fixed."""
    model.train()
    for module in model.modules():
        params = list(module.parameters())
        if params and not any(param.requires_grad for param in params):
            module.eval()


def _finite(loss: float, step: int) -> float:
    if abs(loss) < float("inf"):
        return loss
    raise MillError(
        f"the detector's loss is {loss} at iteration {step}: use a lower lr=, or a longer warmup="
    )


def _detections(output: dict[str, torch.Tensor]) -> Detections:
    boxes, scores = (output[key].float().cpu().numpy() for key in ("boxes", "scores"))
    masks = None
    if "masks" in output:
        from pycocotools import mask as rle

        binary = (output["masks"][:, 0] >= MASK_THRESHOLD).byte().cpu().numpy()
        masks = [rle.encode(np.asfortranarray(mask)) for mask in binary]
    return Detections(boxes, output["labels"].cpu().numpy() - 1, scores, masks)
