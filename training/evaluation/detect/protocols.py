"""Detection protocols by name, each with its source, and their overrides by the settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from patchmill.loaders.common.errors import MillError
from patchmill.training.config.settings import Optim
from patchmill.training.evaluation.detect.settings import Settings

REFERENCE_SIDE = 800  # short side of test images that torchvision's anchors are designed for


@dataclass(frozen=True)
class Protocol:
    optim: Optim
    iterations: int | None  # None: as many as `epochs` take
    epochs: float | None
    drops: tuple[float, ...]  # shares of all iterations at which lr is divided by 10
    warmup: int  # iterations
    batch: int
    short_sides: tuple[int, ...]
    drop_path: float = 0.0
    norm: bool = False  # batch norm in the pyramid
    long_side: int = 1333
    test_side: int = REFERENCE_SIDE
    channels: int = 256
    proposals: int = 1000
    regions: int = 512

    @property
    def total(self) -> int:
        """Number of iterations, once `resolve` has set it."""
        assert self.iterations is not None
        return self.iterations


def _sides(low: int) -> tuple[int, ...]:
    return tuple(range(low, 801, 32))


# detectron2's defaults: momentum 0.9, weight decay 1e-4, none on norms; here none on biases either.
_MOCO = Optim(name="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, schedule="steps")

PROTOCOLS = {
    # bok3948/GTSA, downstream/mmdet and README: Mask R-CNN, 12 epochs on eight GPUs with one image
    # each. There, half of the images are cropped before resizing, here none; there, biases have
    # weight decay but position embeddings have none.
    "coco": Protocol(
        Optim(name="adamw", lr=5e-5, weight_decay=0.05, schedule="steps"),
        iterations=None,
        epochs=12,
        drops=(8 / 12, 11 / 12),
        warmup=1000,
        batch=8,
        short_sides=_sides(480),
        drop_path=0.05,
    ),
    # facebookresearch/moco, detection/configs: pascal_voc_R_50_C4_24k and Base-RCNN-C4-BN. There,
    # the detector is detectron2's R50-C4 with a batch norm after res5, and batch-norm statistics
    # are recomputed before the test; here it is torchvision's, with batch norms in the pyramid.
    "moco_voc": Protocol(
        _MOCO,
        iterations=24_000,
        epochs=None,
        drops=(18 / 24, 22 / 24),
        warmup=100,
        batch=16,
        short_sides=_sides(480),
        norm=True,
    ),
    # The same, coco_R_50_C4_2x; its warm-up is detectron2's default.
    "moco_coco": Protocol(
        _MOCO,
        iterations=180_000,
        epochs=None,
        drops=(120 / 180, 160 / 180),
        warmup=1000,
        batch=16,
        short_sides=_sides(640),
        norm=True,
    ),
    # Ours, for small images on a CPU.
    "demo": Protocol(
        Optim(name="adamw", lr=1e-3, weight_decay=0.05, schedule="steps", grad_clip=5.0),
        iterations=300,
        epochs=None,
        drops=(0.7, 0.9),
        warmup=30,
        batch=8,
        short_sides=(96, 112, 128),
        norm=True,
        long_side=192,
        test_side=128,
        channels=64,
        proposals=200,
        regions=64,
    ),
}

_OWN = (
    "iterations", "epochs", "drops", "warmup", "batch", "drop_path", "short_sides", "long_side",
    "test_side", "channels", "proposals", "regions",
)  # fmt: skip
_OF_OPTIM = {
    "optimiser": "name",
    "lr": "lr",
    "weight_decay": "weight_decay",
    "grad_clip": "grad_clip",
}


def resolve(name: str, settings: Settings, images: int) -> Protocol:
    """Return the protocol for so many training images, overridden by the user's values.

    Its optimiser's warm-up and milestones are in iterations: for `rates_at`, a step is an epoch.
    """
    if settings.iterations and settings.epochs:
        raise MillError("set iterations= or epochs=, not both")
    protocol = PROTOCOLS[name]
    own = {key: value for key in _OWN if (value := getattr(settings, key)) is not None}
    if settings.iterations:
        own["epochs"] = None
    protocol = replace(protocol, **own)
    if not protocol.short_sides:
        raise MillError("short_sides=[] has no size for the training images: name one")
    total = protocol.iterations or 1
    if protocol.epochs:
        total = max(round(protocol.epochs * images / protocol.batch), 1)
    if protocol.warmup >= total:
        raise MillError(
            f"warmup={protocol.warmup} takes all of the {total} iterations: set a shorter warmup="
        )
    changed = {
        field: value
        for key, field in _OF_OPTIM.items()
        if (value := getattr(settings, key)) is not None
    }
    optim = replace(
        protocol.optim,
        warmup=float(protocol.warmup),
        milestones=tuple(share * total for share in protocol.drops),
        **changed,
    )
    return replace(protocol, optim=optim, iterations=total)
