"""Fine-tuning protocols by source: the optimiser, its schedule and the regularisation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from patchmill.loaders.common.errors import MillError
from patchmill.training.config.settings import Optim
from patchmill.training.evaluation.finetune.network import Head

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config

SMALL = 64  # image side, in pixels, up to which auto uses Selfie's protocol, made for CIFAR


@dataclass(frozen=True)
class Protocol:
    optim: Optim  # lr is the backbone's
    epochs: int
    batch: int  # over all ranks
    head_lr: float | None = None  # if not the backbone's; scaled like it
    baseline_lr: float | None = None  # of backbone and head from scratch, if not as above
    layer_decay: float = 1.0
    drop_path: float = 0.0
    smoothing: float = 0.0  # label smoothing
    mixup: float = 0.0  # alpha; 0 for none
    cutmix: float = 0.0  # alpha; 0 for none
    erase: float = 0.0  # probability of random erasing
    head: Head = field(default_factory=Head)

    @property
    def mixes(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


def _sgd(lr: float, **settings: Any) -> Optim:
    options = {"momentum": 0.9, "weight_decay": 0.0, "exclude": False, **settings}
    return Optim(name="sgd", lr=lr, **options)


def _gtsa(lr: float, *, scaled: bool) -> Protocol:
    """GTSA's fine-tuning on iNaturalist 2019, without RandAugment, which the renderer lacks."""
    optim = Optim(name="adamw", lr=lr, scaled=scaled, weight_decay=0.05, warmup=5)
    return Protocol(
        optim,
        epochs=300,
        batch=1024,
        layer_decay=0.65,
        drop_path=0.1,
        smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        erase=0.25,
        head=Head("patches", norm=True, std=2e-5),  # main_finetune.py:258-259
    )


PROTOCOLS = {
    # facebookresearch/vicreg, README: 20 epochs of 1 % and 10 % of ImageNet
    "vicreg_1pct": Protocol(_sgd(0.03, per_epoch=True), 20, 256, head_lr=0.08),
    "vicreg_10pct": Protocol(_sgd(0.01, per_epoch=True), 20, 256, head_lr=0.1),
    # facebookresearch/swav, eval_semisup.py, for 10 % of ImageNet; recalled: no weight decay, 256
    "swav": Protocol(
        _sgd(0.01, schedule="steps", milestones=(12.0, 16.0), gamma=0.2),
        epochs=20,
        batch=256,
        head_lr=0.2,
        head=Head(std=None),
    ),
    # An independent re-implementation of Selfie, on CIFAR; ours: a warm-up of 5 epochs
    "selfie": Protocol(
        _sgd(0.01, nesterov=True, weight_decay=1e-4, warmup=5), 200, 128, baseline_lr=0.2
    ),
    # bok3948/GTSA: the rate its script uses, whose default overrides the published command's
    "gtsa": _gtsa(1.4e-4, scaled=False),
    "gtsa_base": _gtsa(5e-4, scaled=True),  # the rate in its published command
    # ours: seconds to minutes on a CPU
    "demo": Protocol(_sgd(0.02, nesterov=True, weight_decay=1e-4, warmup=1), 20, 16),
}

# Share of the labels up to which vicreg uses its rates for 1 %; above it, those for 10 %
FEW = 0.03


def resolve(config: Config, name: str, share: float) -> tuple[str, Protocol]:
    """Return a protocol's name and values; auto is the method's own, or one for the image size."""
    if name == "auto":
        own = {"vicreg": "vicreg", "selfie": "selfie", "gtsa": "gtsa"}
        by_size = "selfie" if config.size <= SMALL else "vicreg"
        name = "demo" if config.scale == "demo" else own.get(config.method_name, by_size)
    if name == "vicreg":
        name = "vicreg_1pct" if share <= FEW else "vicreg_10pct"
    return name, PROTOCOLS[name]


def override(protocol: Protocol, changes: dict[str, Any]) -> Protocol:
    """Return the protocol with some of its own or its optimiser's fields replaced."""
    own = {name: value for name, value in changes.items() if hasattr(protocol, name)}
    optim = {name: value for name, value in changes.items() if name not in own}
    changed = replace(protocol, **own, optim=replace(protocol.optim, **optim))
    if changed.optim.warmup > changed.epochs:
        raise MillError(
            f"warmup={changed.optim.warmup:g} is longer than epochs={changed.epochs}: "
            "shorten the warm-up, too"
        )
    return changed


def for_baseline(protocol: Protocol) -> Protocol:
    """Return the protocol for the same network from scratch."""
    if protocol.baseline_lr is None:
        return protocol
    return replace(protocol, optim=replace(protocol.optim, lr=protocol.baseline_lr), head_lr=None)
