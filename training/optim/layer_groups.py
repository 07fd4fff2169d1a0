"""Parameter groups for fine-tuning: layer-wise learning-rate decay, and a separate head rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training.nets.dense import trunk
from patchmill.training.optim import optimizers

if TYPE_CHECKING:
    from patchmill.training.config.settings import Optim
    from patchmill.training.nets.backbones import Backbone


def build(
    settings: Optim,
    backbone: Backbone,
    head: nn.Module,
    layer_decay: float = 1.0,
    head_scale: float = 1.0,
) -> list[dict[str, Any]]:
    """Build groups for `optimizers.build_groups`, each with a `scale` of the learning rate.

    The head's is `head_scale`. In the backbone, each layer has `layer_decay` times the rate of the
    layer above it; the topmost has `layer_decay` times the settings' rate.
    """
    of_head = optimizers.groups(head.parameters(), settings.exclude)
    of_backbone = (
        optimizers.groups(backbone.parameters(), settings.exclude)
        if layer_decay == 1
        else _by_layer(backbone, layer_decay, settings.exclude)
    )
    return [*of_backbone, *({**group, "scale": head_scale} for group in of_head)]


def _by_layer(backbone: Backbone, layer_decay: float, exclude: bool) -> list[dict[str, Any]]:
    """Build groups by timm's layers; biases, norms, tokens and positions have no weight decay.

    Parameters of a backbone outside timm's network use the settings' rate.
    """
    from timm.optim import param_groups_layer_decay

    network = trunk(backbone)
    if not hasattr(network, "group_matcher"):
        raise MillError(
            f"layer_decay={layer_decay:g} is for networks whose layers timm numbers, not for "
            f"{type(network).__name__}: use layer_decay=1"
        )
    undecayed: set[str] = getattr(network, "no_weight_decay", set)()
    layers = [
        {
            "params": group["params"],
            "decays": bool(group["weight_decay"]),
            # timm gives the topmost layer a factor of 1, which is the head's here.
            "scale": layer_decay * group["lr_scale"],
        }
        for group in param_groups_layer_decay(
            network, weight_decay=1.0, no_weight_decay_list=undecayed, layer_decay=layer_decay
        )
    ]
    numbered = set(map(id, network.parameters()))
    around = (param for param in backbone.parameters() if id(param) not in numbered)
    return [*layers, *optimizers.groups(around, exclude)]
