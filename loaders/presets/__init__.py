"""Presets: the view recipes of published methods, as functions of their usual settings.

Each cites the source of its numbers and marks those that could not be verified. Groups are named
`global` and `local` for crops of two sizes, `views` for two equal views, `patches` for many views,
`image` for evaluation.
"""

from patchmill.loaders.presets.evaluation import eval
from patchmill.loaders.presets.multi_crop import dino, dinov2, gtsa, lejepa, swav
from patchmill.loaders.presets.patches import bagssl, emp_ssl, selfie
from patchmill.loaders.presets.registry import (
    ALL,
    CIFAR_MEAN,
    CIFAR_STD,
    HALF,
    MILD,
    STRONG,
    SWAV_STD,
    preset,
)
from patchmill.loaders.presets.two_views import dilo, dilo_v1, moco_v1, moco_v2, simclr, vicreg

__all__ = [
    "ALL",
    "CIFAR_MEAN",
    "CIFAR_STD",
    "HALF",
    "MILD",
    "STRONG",
    "SWAV_STD",
    "bagssl",
    "dilo",
    "dilo_v1",
    "dino",
    "dinov2",
    "emp_ssl",
    "eval",
    "gtsa",
    "lejepa",
    "moco_v1",
    "moco_v2",
    "preset",
    "selfie",
    "simclr",
    "swav",
    "vicreg",
]
