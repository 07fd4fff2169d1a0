"""Settings of evaluate=detect. If None, the protocol's value is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from patchmill.loaders.common.settings import Bounds
from patchmill.training.config.settings import Amount, Count, Positive, Share, Whole

Seed = Annotated[int, Bounds(0, 2**63 - 1)]


@dataclass
class Settings:
    train: str = ""  # COCO's FILE.json, VOC's lists a.txt+b.txt, or scenes; '': the run's scenes
    test: str = ""  # the same, for testing
    train_images: str | None = None  # folder of FILE.json's images; none: COCO's layout
    test_images: str | None = None  # the same, for the test images
    protocol: Literal["auto", "coco", "moco_voc", "moco_coco", "demo"] = "auto"  # auto: by the data
    head: Literal["auto", "faster", "mask"] = "auto"  # auto: mask (Mask R-CNN) if masks exist
    freeze: bool = False  # train only the pyramid and the heads
    untrained: bool = True  # also train an untrained backbone, with the same budget and seed
    seed: Seed = 0  # seed of the heads' weights, the order of images and all sampling
    picture: Whole = 6  # test images in the picture of detections; 0 for none
    iterations: Count | None = None  # training iterations; none, here and below: the protocol's
    epochs: Positive | None = None  # passes over the training images, instead of iterations
    drops: tuple[Share, ...] | None = None  # shares of all iterations at which lr is divided by 10
    warmup: Whole | None = None  # iterations in which lr rises from 0
    batch: Count | None = None  # images per step
    optimiser: Literal["sgd", "adamw"] | None = None  # sgd with momentum, or adamw
    lr: Positive | None = None  # peak learning rate
    weight_decay: Amount | None = None  # weight decay, except on biases and norms
    grad_clip: Positive | None = None  # maximum norm of the whole gradient
    drop_path: Share | None = None  # stochastic depth of the backbone
    short_sides: tuple[Count, ...] | None = None  # of training images in pixels, one drawn for each
    long_side: Count | None = None  # maximum of an image's long side in pixels
    test_side: Count | None = None  # short side of test images in pixels
    channels: Count | None = None  # width of the pyramid and the mask head
    proposals: Count | None = None  # proposals per image of the region proposal network
    regions: Count | None = None  # proposals per image that the box head trains on
