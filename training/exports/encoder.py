"""The encoder of a run for exports: a network in eval mode, and metadata about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from patchmill import __version__
from patchmill.loaders.common.errors import MillError
from patchmill.training import data
from patchmill.training.config.recipes import evaluation_recipe, training_recipe
from patchmill.training.methods.emp_ssl import Widened

if TYPE_CHECKING:
    from torch import Tensor

    from patchmill.loaders.recipe import Views
    from patchmill.training.evaluation.trained_run import TrainedRun
    from patchmill.training.methods.method import Encoder as Choice


@dataclass(frozen=True)
class Encoder:
    backbone: nn.Module  # images to h, as evaluations use it
    name: str  # timm's name of the backbone
    size: int  # side of its training images, in pixels
    view: Views  # the evaluation view, with the mean and std of training
    facts: dict[str, Any]  # metadata about its origin

    def timm_model(self, library: str) -> nn.Module:
        """Return the network if it is timm's; otherwise raise a MillError that names `library`."""
        network = self.backbone.backbone if isinstance(self.backbone, Widened) else self.backbone
        if not any(cls.__module__.startswith("timm.") for cls in type(network).__mro__):
            kind = type(network).__name__
            raise self.unsupported(library, f"it is a {kind}, not a timm model")
        return network

    def unsupported(self, library: str, reason: str) -> MillError:
        others = "to=safetensors" if library == "timm" else "to=timm or to=safetensors"
        return MillError(f"{library} cannot load this {self.name}: {reason}; try {others}")

    @property
    def notes(self) -> list[str]:
        """Describe how the exported network differs from the evaluated one."""
        if isinstance(self.backbone, Widened):
            return ["h is taken before the widening layer, which is not exported"]
        return []


def from_run(run: TrainedRun, choice: Choice = "auto") -> Encoder:
    """Return the encoder that a run's method evaluates, or its student or teacher."""
    backbone = run.method.encoder(choice).eval()
    (trained_on, *_) = training_recipe(run.config).views
    (view, *_) = data.normalised_as_trained(evaluation_recipe(run.config), run.config).views
    facts = {
        "architecture": run.config.model.name,
        "method": run.config.method_name,
        "encoder": run.method.evaluated if choice == "auto" else choice,
        "step": run.step,
        "epoch": run.epoch,
        "size": trained_on.size,
        "mean": list(trained_on.mean),
        "std": list(trained_on.std),
        "num_features": backbone.num_features,
        "patchmill": __version__,
    }
    return Encoder(backbone, run.config.model.name, trained_on.size, view, facts)


def difference(tensors: dict[str, Tensor], plain: dict[str, Tensor]) -> str:
    """Describe the first tensor that is missing, extra or of another shape; empty if none is."""
    for name in sorted({*tensors, *plain}):
        if name not in tensors:
            return f"it has no {name}"
        if name not in plain:
            return f"it has an extra {name}"
        if tensors[name].shape != plain[name].shape:
            return f"its {name} has another shape"
    return ""


def weights(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's state dict, contiguous and on the CPU."""
    return {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
