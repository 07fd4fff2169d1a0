"""Methods, one per file, each written like its paper's algorithm box."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import own_method
from patchmill.training.config.recipes import training_recipe
from patchmill.training.methods.bagssl import BagSSL
from patchmill.training.methods.byol import BYOL
from patchmill.training.methods.dilo import DiLo
from patchmill.training.methods.dino import DINO
from patchmill.training.methods.emp_ssl import EMPSSL
from patchmill.training.methods.gtsa import GTSA
from patchmill.training.methods.lejepa import LeJEPA
from patchmill.training.methods.method import Losses, Method, Progress
from patchmill.training.methods.moco import MoCo
from patchmill.training.methods.selfie import Selfie
from patchmill.training.methods.simclr import SimCLR
from patchmill.training.methods.supervised import Supervised
from patchmill.training.methods.tcr import TCR
from patchmill.training.methods.vicreg import VICReg

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config

__all__ = ["METHODS", "Losses", "Method", "Progress", "build", "find"]

METHODS: dict[str, type[Method]] = {
    "moco": MoCo,
    "dilo": DiLo,
    "simclr": SimCLR,
    "vicreg": VICReg,
    "tcr": TCR,
    "bagssl": BagSSL,
    "emp_ssl": EMPSSL,
    "byol": BYOL,
    "lejepa": LeJEPA,
    "selfie": Selfie,
    "dino": DINO,
    "gtsa": GTSA,
    "supervised": Supervised,
}


def find(name: str) -> type[Method]:
    """Return the class of a method, given a name in METHODS or the user's own `module:Class`."""
    if own_method.is_own(name):
        return own_method.load(name)
    if name not in METHODS:
        raise MillError(f"there is no method {name!r}{nearest(name, METHODS)}")
    return METHODS[name]


def build(config: Config, classes: int | None = None) -> Method:
    """Build the networks of a run; `classes` is the number of classes, for methods with labels."""
    method, recipe = find(config.method_name), training_recipe(config)
    method.check(config.method, recipe)
    if method.needs_labels and not classes:
        raise MillError(
            f"method {config.method_name} learns from labels, but {config.data.train} has none"
        )
    backbone = method.make_backbone(config.method, config.model, recipe)
    return method(config.method, backbone, *([classes] if method.needs_labels else []))
