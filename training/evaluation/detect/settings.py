"""Settings of evaluate=detect. Those that are none are the protocol's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from patchmill.loaders.common.settings import Bounds
from patchmill.training.config.settings import Amount, Count, Positive, Share, Whole

Seed = Annotated[int, Bounds(0, 2**63 - 1)]


@dataclass
class Settings:
    train: str = ""  # COCO's FILE.json, VOC's lists a.txt+b.txt, or scenes; '': the run's scenes
    test: str = ""  # the same, to test on
    train_images: str | None = None  # folder of FILE.json's images; none: where COCO has it
    test_images: str | None = None  # the same, of the images to test on
    protocol: Literal["auto", "coco", "moco_voc", "moco_coco", "demo"] = "auto"  # auto: by the data
    head: Literal["auto", "faster", "mask"] = "auto"  # auto: mask (Mask R-CNN) where masks exist
    freeze: bool = False  # train the pyramid and the heads alone
    untrained: bool = True  # train an untrained backbone, too, with the same budget and seed
    seed: Seed = 0  # of the heads' weights, the order of images and all that is sampled
    picture: Whole = 6  # test images in the picture of detections; 0 for none
    iterations: Count | None = None  # of training; none, here and below: the protocol's
    epochs: Positive | None = None  # passes over the training images, instead of iterations
    drops: tuple[Share, ...] | None = None  # shares of all iterations at which lr falls tenfold
    warmup: Whole | None = None  # iterations in which lr rises from 0
    batch: Count | None = None  # images in a step
    optimiser: Literal["sgd", "adamw"] | None = None  # sgd with momentum, or adamw
    lr: Positive | None = None  # learning rate at its peak
    weight_decay: Amount | None = None  # of all but biases and norms
    grad_clip: Positive | None = None  # maximum norm of the whole gradient
    drop_path: Share | None = None  # stochastic depth of the backbone
    short_sides: tuple[Count, ...] | None = None  # of training images in pixels, one drawn for each
    long_side: Count | None = None  # the most pixels of an image's long side
    test_side: Count | None = None  # short side of test images in pixels
    channels: Count | None = None  # of the pyramid and the mask head
    proposals: Count | None = None  # of each image, by the region proposal network
    regions: Count | None = None  # the proposals of each image that the box head trains on
