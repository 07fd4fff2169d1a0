"""DiLo (Zhao et al., arXiv 2004.06638): MoCo on views whose background was exchanged.

The salient part of an image is pasted on another background in some of its views, so that what the
two views agree on is the foreground. All of that is in the recipe; the learner stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from patchmill.training.methods import moco


@dataclass
class DiLoSettings(moco.MoCoSettings):
    views: str = "dilo"  # the recipe: MoCo's with copy-paste, or a YAML file


class DiLo(moco.MoCo):
    Settings = DiLoSettings
