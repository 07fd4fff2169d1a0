"""DiLo (Zhao et al., arXiv 2004.06638): MoCo on views with swapped backgrounds.

In some views the salient foreground is pasted on another background, so that two views of an image
share only the foreground. The recipe does all of that; the learner is MoCo. The share of pasted
views is logged as `pasted`: images without a usable mask keep it below the recipe's p.
"""

from __future__ import annotations

from dataclasses import dataclass

from patchmill.kernels.views.decisions import PASTE_NEVER
from patchmill.loaders.batch import ViewBatch
from patchmill.training.methods import moco
from patchmill.training.methods.method import Losses


@dataclass
class DiLoSettings(moco.MoCoSettings):
    views: str = "dilo"  # the recipe: MoCo's with copy-paste, or a YAML file


class DiLo(moco.MoCo):
    Settings = DiLoSettings

    def forward(self, batch: ViewBatch) -> Losses:
        losses = super().forward(batch)
        share = float((batch.rows["paste"] != PASTE_NEVER).mean())
        losses.metrics["pasted"] = losses.loss.detach().new_full((), share)
        return losses
