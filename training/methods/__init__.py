"""Methods, one per file, each written like its paper's algorithm box."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError
from patchmill.training.config.recipes import training_recipe
from patchmill.training.methods.bagssl import BagSSL
from patchmill.training.methods.dilo import DiLo
from patchmill.training.methods.emp_ssl import EMPSSL
from patchmill.training.methods.method import Losses, Method, Progress
from patchmill.training.methods.moco import MoCo
from patchmill.training.methods.simclr import SimCLR
from patchmill.training.methods.supervised import Supervised
from patchmill.training.methods.tcr import TCR
from patchmill.training.methods.vicreg import VICReg

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config
    from patchmill.training.nets.backbones import Backbone

__all__ = ["METHODS", "Losses", "Method", "Progress", "build"]

METHODS: dict[str, type[Method]] = {
    "moco": MoCo,
    "dilo": DiLo,
    "simclr": SimCLR,
    "vicreg": VICReg,
    "tcr": TCR,
    "bagssl": BagSSL,
    "emp_ssl": EMPSSL,
    "supervised": Supervised,
}


def build(config: Config, backbone: Backbone, classes: int | None = None) -> Method:
    """Build the method of a run; `classes` is the number of classes, for methods with labels."""
    method = METHODS[config.method_name]
    method.check(config.method, training_recipe(config))
    if not method.needs_labels:
        return method(config.method, backbone)
    if not classes:
        raise MillError(
            f"method {config.method_name} learns from labels, and {config.data.train} has none"
        )
    return method(config.method, backbone, classes)
