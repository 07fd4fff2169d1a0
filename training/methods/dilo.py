"""DiLo (Zhao et al., arXiv 2004.06638): MoCo on views with swapped backgrounds.

In some views the salient foreground is pasted on another background, so that two views of an image
share the foreground alone. The recipe does all of that; the learner is MoCo's.
"""

from __future__ import annotations

from dataclasses import dataclass

from patchmill.training.methods import moco


@dataclass
class DiLoSettings(moco.MoCoSettings):
    views: str = "dilo"  # the recipe: MoCo's with copy-paste, or a YAML file


class DiLo(moco.MoCo):
    Settings = DiLoSettings
