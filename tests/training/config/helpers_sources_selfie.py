"""Settings of Selfie at every scale, each under the source that its value is from."""

from __future__ import annotations

from typing import Any

from helpers_sources import ADAMW, CIFAR_MEAN, CIFAR_STD, OURS, RECALLED

from patchmill.loaders.recipe import Colour, Crop, Grid, Shift

SELFIE = "arXiv 1906.02940, by way of its abstract and of summaries"
SELFIE_AGAIN = "an independent re-implementation of Selfie"

CHOSEN = {
    "method.positions": "auto", "method.layer_norm": "post", "method.shared_positions": True,
    "zero_init": False,
}  # fmt: skip
FROM_MEMORY = [
    "method.blocks", "method.heads", "method.hidden", "method.dropout", "optim.name",
    "optim.momentum", "optim.nesterov", "optim.weight_decay", "optim.schedule", "optim.warmup",
    "train.batch_size",
]  # fmt: skip

SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("selfie", "paper"): {
        SELFIE: {"model.name": "resnetv2_50", "model.stem": "imagenet", "views.size": 32},
        SELFIE_AGAIN: {"method.masked": 0.25, "optim.lr": 0.4},
        OURS: {
            **CHOSEN, "optim.scaled": False, "optim.exclude": False,
            "views.crop": Grid(7, 7, Crop()),
        },
        RECALLED: [*FROM_MEMORY, "train.epochs"],
    },
    ("selfie", "cifar"): {
        SELFIE: {"model.name": "resnetv2_50", "views.size": 8},
        SELFIE_AGAIN: {
            "method.masked": 0.25, "optim.lr": 0.4, "train.epochs": 200, "views.flip": 0.5,
            "views.crop": Grid(4, 4, Shift(4)),
        },
        OURS: {
            **CHOSEN, "model.stem": "cifar", "optim.scaled": False, "optim.exclude": False,
            "evaluate.view": "eval(size=32, short_side=32)",
        },
        RECALLED: [*FROM_MEMORY, "views.mean", "views.std"],
    },
    ("selfie", "demo"): {
        OURS: {
            **CHOSEN, **ADAMW, "optim.lr": 0.002, "optim.nesterov": True, "method.masked": 0.25,
            "method.blocks": 1, "method.heads": 4, "method.hidden": 256, "method.dropout": 0.1,
            "model.name": "test_resnet", "model.stem": "imagenet", "train.epochs": 6,
            "views.size": 16, "views.crop": Grid(4, 4, Shift(4)), "views.mean": CIFAR_MEAN,
            "views.std": CIFAR_STD, "views.colour": Colour(0.8, 0.8, 0.8, 0.5, p=1.0),
        },
    },
}  # fmt: skip
