"""Settings of the evaluations on features and of fine-tuning; each field's comment is its help.

They are separate from the evaluations so that help and completion do not import torch.
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
    images: Count | None = None  # at most this many training images
    augment: bool = False  # new crops in each epoch, for which the network runs again
    seed: Whole = 0  # seed of the classifier and of the order of images


@dataclass
class Online:
    """Settings of evaluate=online: it has none of its own, and uses the run's."""


@dataclass
class Patches:
    counts: list[Count] = field(default_factory=lambda: [1, 16, 64, 256])  # patches per image
    sampling: Sampling = "grid"  # grid: evenly spaced; random: drawn as in training
    photometric: bool = False  # random patches with training's colours, as EMP-SSL evaluates
    area: Annotated[float, Bounds(above=0, most=1)] | None = None  # a patch's, if not training's
    probe: Literal["auto", "none", ProtocolName] = "emp_ssl"  # linear probe, besides kNN
    images: Count | None = None  # at most this many training images
    enlarged: bool = False  # add a row for the whole image, magnified like the patches
    curve: Whole = 128  # test images for the convergence curve; 0 for none
    untrained: bool = True  # also draw the untrained network's curve
    neighbours: Whole = 8  # query patches in the nearest-neighbour picture; 0 for none
    seed: Whole = 0  # seed of the probes


@dataclass
class Reliance:
    probe: Literal["auto", "none", "ridge", ProtocolName] = "auto"  # besides kNN; ridge: online's
    untrained: bool = False  # also evaluate the networks before training
    space: Space = "h"  # the backbone's h, or the projector's z
    images: Count | None = None  # at most this many training images
    seed: Whole = 0  # seed of the probe


Part = Annotated[float, Bounds(above=0, most=1)]
Parts = list[Part]
Seeds = list[Whole]
FinetuneName = Literal[
    "auto", "vicreg", "vicreg_1pct", "vicreg_10pct", "swav", "selfie", "gtsa", "gtsa_base", "demo"
]


@dataclass
class Finetune:
    labels: Part | Parts | None = None  # shares of the training labels; 0.1 unless list is given
    list: str | None = None  # a file that lists the images to learn from, instead of labels
    seeds: Seeds = field(default_factory=lambda: [0, 1, 2, 3, 4])  # of subsets and of training
    baseline: bool = False  # also train the same network from scratch
    protocol: FinetuneName = "auto"  # auto: the method's, or one for the image size
    variant: str = "auto"  # the network to fine-tune, if a method has several
    subsets: str | None = None  # the folder of subsets, if not in the run's
    views: str | None = None  # the recipe of training views; by default a random crop, flipped
    steps: Count | None = None  # instead of epochs: whole epochs, until there are so many steps
    epochs: Count | None = None  # this and all below: if not the protocol's
    batch: Count | None = None  # images per step, over all ranks
    optimiser: Literal["sgd", "adamw", "lars"] | None = None  # the optimiser
    lr: Positive | None = None  # peak learning rate of the backbone
    head_lr: Positive | None = None  # learning rate of the linear head
    baseline_lr: Positive | None = None  # learning rate from scratch, of backbone and head
    schedule: Literal["cosine", "steps", "constant"] | None = None  # learning-rate schedule
    warmup: Amount | None = None  # epochs of linear warm-up
    weight_decay: Amount | None = None  # the optimiser's weight decay
    layer_decay: Part | None = None  # factor of the rate from each layer to the one below
    drop_path: Share | None = None  # stochastic depth
    smoothing: Share | None = None  # label smoothing
    mixup: Amount | None = None  # alpha of mixup; 0 for none
    cutmix: Amount | None = None  # alpha of cutmix; 0 for none
    erase: Share | None = None  # probability of random erasing
