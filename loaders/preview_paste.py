"""What copy-paste does to a sample: its mask, and the whole image as the first such view has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchmill.kernels.views.rows import GREY_NEVER, NO_JITTER, ON_IMAGE, PASTE_NEVER, ROW, Target
from patchmill.loaders import plan
from patchmill.loaders.order import substitute
from patchmill.loaders.preview_samples import Mask, image_of
from patchmill.loaders.sources import Source

_SIDE = 256  # of the square that the composite is rendered in
_TRIES = 16


@dataclass(frozen=True)
class Pasting:
    """What a sample is pasted by, and on."""

    mask: Mask
    companion: np.ndarray | None = None  # the image behind it, where one is wanted


def pasting(
    source: Source, mask: Mask, rows: np.ndarray, seed: int, epoch: int, id: int
) -> Pasting:
    """For a sample's rows [1, views], which are not pasted where its mask cannot be used."""
    if mask.usable is None:
        rows["paste"] = PASTE_NEVER
    if not (rows["paste"] == ON_IMAGE).any():
        return Pasting(mask)
    return Pasting(mask, _companion(source, seed, epoch, id))


def _companion(source: Source, seed: int, epoch: int, id: int) -> np.ndarray | None:
    """The image behind this one's pasted views; of a bad one the substitute, as in training."""
    other = wanted = int(plan.companion(np.uint64(seed), epoch, id, len(source)))
    for attempt in range(_TRIES):
        image, _ = image_of(source, other)
        if image is not None:
            return image
        other = substitute(seed, epoch, wanted, attempt, len(source))
    return None


def composite(image: np.ndarray, rows: np.ndarray, pasting: Pasting) -> np.ndarray | None:
    """uint8 [256, 256, 3], whatever the image's aspect; None where no view was pasted."""
    import torch

    from patchmill.kernels.views import cpu

    pasted = rows[rows["paste"] != PASTE_NEVER]
    if not len(pasted):
        return None
    row = np.zeros(1, ROW)
    row["box_h"], row["box_w"] = image.shape[:2]
    row["full_h"] = row["full_w"] = _SIDE
    row["order"], row["grey"] = NO_JITTER, GREY_NEVER
    for name in ("paste", "ground", "soft", "ground_y", "ground_x"):
        row[name] = pasted[0][name]
    target = Target("whole", 1, _SIDE, False, (0, 0, 0), (1, 1, 1))
    planes, grounds = [pasting.mask.usable], [pasting.companion]
    made = cpu.render(
        [image], row[None], [target], dtype=torch.uint8, masks=planes, companions=grounds
    )
    return made["whole"][0, 0].permute(1, 2, 0).numpy()
