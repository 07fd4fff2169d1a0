"""Settings of evaluate=segment, and the budget that results from them and a protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.settings import Bounds
from patchmill.training.config.settings import Amount, Count, Positive, Share, Whole
from patchmill.training.evaluation.segment import budget
from patchmill.training.evaluation.segment.budget import Budget

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config

MOST_CLASSES = 255

Zero = bool | Literal["auto"]
Side = Annotated[int, Bounds(1, 4096)]


@dataclass
class Settings:
    root: str = ""  # ADE20K's folder of images and annotations, instead of data.train and data.test
    head: Literal["fpn", "linear", "knn"] = "fpn"  # Semantic FPN, a linear probe, kNN of tokens
    freeze: bool = False  # freeze the backbone under an fpn; other heads always do
    protocol: Literal["auto", "paper", "demo"] = "auto"  # budget; auto: paper if the run's scale is
    untrained: bool = True  # also train on an untrained backbone, with the same budget
    iterations: Count | None = None  # training iterations, instead of the protocol's
    batch: Count | None = None  # images per iteration, instead of the protocol's
    size: Side | tuple[Side, Side] | None = None  # pixels of a view: a side, or [height,width]
    lr: Positive | None = None  # peak learning rate, instead of the protocol's
    weight_decay: Amount | None = None  # AdamW's weight decay, instead of the protocol's
    warmup: Whole | None = None  # iterations of warm-up; by default the protocol's share of them
    photometric: bool | None = None  # distort colours in training, instead of the protocol's choice
    channels: Annotated[int, Bounds(2, 4096)] | None = None  # of the pyramid; half in its head
    dropout: Share | None = None  # before the last layer of an fpn, instead of the protocol's
    classes: Annotated[int, Bounds(1, MOST_CLASSES)] | None = None  # instead of the number counted
    reduce_zero_label: Zero = "auto"  # 0 in a mask is no class; auto: true in annotations
    tokens: Count = 50_000  # knn: at most this many tokens in the bank
    seed: Whole = 0  # seed of the head, the order of images, their views, and the bank's tokens


def resolve(settings: Settings, config: Config) -> Budget:
    """Return the protocol's budget, overridden by the user's values."""
    paper = config.scale == "paper" if settings.protocol == "auto" else settings.protocol == "paper"
    chosen = budget.paper(settings.head) if paper else budget.demo(settings.head, config.size)
    names = "iterations", "batch", "lr", "weight_decay", "photometric", "channels", "dropout"
    given: dict[str, Any] = {name: getattr(settings, name) for name in names}
    if isinstance(settings.size, int):
        given["size"] = (settings.size, settings.size)
    elif settings.size is not None:
        given["size"] = settings.size
    chosen = replace(chosen, **{name: value for name, value in given.items() if value is not None})
    if settings.warmup is None:
        return chosen
    if settings.warmup >= chosen.iterations:
        raise MillError(
            f"warmup={settings.warmup} is not less than the {chosen.iterations} iterations: use "
            "fewer, or more iterations="
        )
    return replace(chosen, warmup=settings.warmup / chosen.iterations)
