"""Settings of the evaluations on features and of fine-tuning; each field's comment is its help.

They are apart from the evaluations so that help and completion need not load torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from patchmill.loaders.common.settings import Bounds
from patchmill.training.config.settings import Amount, Count, Positive, Share, Whole

Space = Literal["h", "z"]
ProtocolName = Literal["moco", "vicreg", "emp_ssl", "dino", "nmce"]
Sampling = Literal["grid", "random"]


@dataclass
class KNN:
    space: Literal["auto", "h", "z"] = "auto"  # backbone's h, projector's z; auto: evaluate.space


@dataclass
class Linear:
    protocol: Literal["auto", ProtocolName] = "auto"  # auto: the method's
    rates: list[Positive] = field(default_factory=list)  # learning rates, instead of its own
    space: Space = "h"  # the backbone's h, or the projector's z
    images: Count | None = None  # at most so many of the training images
    augment: bool = False  # other crops in each epoch, for which the network runs anew each time
    seed: Whole = 0  # of the classifier and of the order of images


@dataclass
class Online:
    """Settings of evaluate=online, which takes the run's alone."""


@dataclass
class Patches:
    counts: list[Count] = field(default_factory=lambda: [1, 16, 64, 256])  # patches of an image
    sampling: Sampling = "grid"  # grid: at even steps; random: drawn as in training
    photometric: bool = False  # random patches with training's colours, as EMP-SSL evaluates
    area: Annotated[float, Bounds(above=0, most=1)] | None = None  # of a patch, if not training's
    probe: Literal["auto", "none", ProtocolName] = "emp_ssl"  # besides kNN
    images: Count | None = None  # at most so many of the training images
    enlarged: bool = False  # a row for the whole image, magnified as the patches are
    curve: Whole = 128  # test images for the curve of convergence; 0 for none
    untrained: bool = True  # the curve of the untrained network, too
    neighbours: Whole = 8  # query patches in the picture of nearest neighbours; 0 for none
    seed: Whole = 0  # of the probes


@dataclass
class Reliance:
    probe: Literal["auto", "none", "ridge", ProtocolName] = "auto"  # besides kNN; ridge: online's
    untrained: bool = False  # the networks before training, too
    space: Space = "h"  # the backbone's h, or the projector's z
    images: Count | None = None  # at most so many of the training images
    seed: Whole = 0  # of the probe


Part = Annotated[float, Bounds(above=0, most=1)]
Parts = list[Part]
Seeds = list[Whole]
FinetuneName = Literal[
    "auto", "vicreg", "vicreg_1pct", "vicreg_10pct", "swav", "selfie", "gtsa", "gtsa_base", "demo"
]


@dataclass
class Finetune:
    labels: Part | Parts | None = None  # shares of the training labels; 0.1 unless list is given
    list: str | None = None  # a file that names the images to learn from, instead of labels
    seeds: Seeds = field(default_factory=lambda: [0, 1, 2, 3, 4])  # of subsets and of training
    baseline: bool = False  # the same network from scratch, too
    protocol: FinetuneName = "auto"  # auto: the method's, or one for the size of images
    variant: str = "auto"  # the network to fine-tune, where a method has several
    subsets: str | None = None  # the folder of subsets, if not in the run's
    views: str | None = None  # the recipe of training views; by default a random crop, flipped
    steps: Count | None = None  # instead of epochs: as many whole epochs as make so many steps
    epochs: Count | None = None  # this and all below: if not the protocol's
    batch: Count | None = None  # images in a step, over all ranks
    optimiser: Literal["sgd", "adamw", "lars"] | None = None  # the optimiser
    lr: Positive | None = None  # peak learning rate of the backbone
    head_lr: Positive | None = None  # of the linear head
    baseline_lr: Positive | None = None  # of backbone and head from scratch
    schedule: Literal["cosine", "steps", "constant"] | None = None  # of the learning rates
    warmup: Amount | None = None  # epochs of linear warm-up
    weight_decay: Amount | None = None  # the optimiser's weight decay
    layer_decay: Part | None = None  # factor of the rate from each layer to the one below
    drop_path: Share | None = None  # stochastic depth
    smoothing: Share | None = None  # of the labels
    mixup: Amount | None = None  # alpha of mixup; 0 for none
    cutmix: Amount | None = None  # alpha of cutmix; 0 for none
    erase: Share | None = None  # probability that a part of a view is erased
